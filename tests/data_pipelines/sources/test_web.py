import gzip
from collections import Counter
from pathlib import Path

import pytest

from data_pipelines.account import Account
from data_pipelines.document import Document
from data_pipelines.extract import READERS
from data_pipelines.sources import web
from data_pipelines.sources.web import list_units
from llmtrain.config.corpus import WebSource
from llmtrain.errors import DataError
from tests.data_pipelines.conftest import NUM_CRAWLED


def read(source: WebSource, downloads: Path) -> tuple[list[Document], Counter[str]]:
    account = Account()
    units = list_units("web", source, downloads)
    return [document for unit in units for document in READERS[unit.kind](unit, account)], account.dropped


def test_the_crawl_of_pydoc_gives_readable_documents(archive: Path) -> None:
    documents, dropped = read(WebSource(kind="web", paths=["pydoc:"], licence="PSF-2.0"), archive.parent)
    assert len(documents) == NUM_CRAWLED
    assert not dropped
    topics = next(document for document in documents if document.origin.endswith("/topics.html"))
    assert {"Topics", "SLICINGS", "TRUTHVALUE"} <= set(topics.text.split())
    assert topics.licence == "PSF-2.0"
    assert not [document.origin for document in documents if "<" in document.text[:50]]


def test_the_site_is_crawled_into_the_downloads_of_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crawl(path: Path) -> Path:
        path.touch()
        return path

    monkeypatch.setattr(web, "crawl_pydoc_site", crawl)
    units = list_units("web", WebSource(kind="web", paths=["pydoc:"]), tmp_path)
    assert [(unit.kind, unit.files) for unit in units] == [("warc", (str(tmp_path / "pydoc.warc.gz"),))]


def test_folders_files_and_globs_of_pages_are_read_and_bad_pages_counted(tmp_path: Path) -> None:
    pages = {
        "a/one.html": b"<p>One</p>",
        "a/b/two.xhtml": b"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'><p>Two</p></html>",
        "a/note.txt": b"not asked for",
        "c/three.HTM": b"<p>Three</p>",
        "c/empty.html": b"",
        "c/binary.html": b"\x7fELF\0\0\0",
        "c/deep.html": b"<div>" * 5000,
    }
    for name, content in pages.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    source = WebSource(kind="web", paths=[str(tmp_path / "a"), f"{tmp_path}/c/*"], licence="CC0-1.0")
    documents, dropped = read(source, tmp_path)
    assert [document.text for document in documents] == ["Two", "One", "Three"]
    assert documents[1] == Document("One", str((tmp_path / "a/one.html").resolve()), "CC0-1.0")
    assert dropped == {"not_parsable": 1, "no_text": 1, "binary": 1}


RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>In an archive</p>"
ARCHIVE = (
    b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.org/\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n"
    % (
        len(RESPONSE),
        RESPONSE,
    )
)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("CRAWL.WARC", ARCHIVE, "warc"),
        ("crawl.Warc.GZ", gzip.compress(ARCHIVE), "warc"),
        ("crawl.warc.gz.part1", gzip.compress(ARCHIVE), "warc"),
        ("segment", ARCHIVE, "warc"),
        ("PAGE.HTML", b"text alone", "html"),
        ("about", b"\xef\xbb\xbf\n<!-- a -->\n<!DOCTYPE html><p>x", "html"),
        ("index.php", b"<?xml version='1.0'?>\n<html lang='en'><p>x</p></html>", "html"),
    ],
)
def test_what_a_file_is_tells_its_ending_or_else_how_it_begins(
    name: str, content: bytes, kind: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    (unit,) = list_units("web", WebSource(kind="web", paths=[str(tmp_path / name)]), tmp_path)
    assert unit.kind == kind
    assert len(list(READERS[unit.kind](unit, Account()))) == 1


@pytest.mark.parametrize("name", ["CRAWL.WARC", "PAGE.Html"])
def test_endings_below_a_folder_count_in_capitals_too(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(ARCHIVE)
    assert len(list_units("web", WebSource(kind="web", paths=[str(tmp_path)]), tmp_path)) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"name,text\na,<p>x</p>\n", "begins neither as HTML nor as a WARC archive, and does not end in .html, .htm"),
        (gzip.compress(b"<html><p>x"), "begins neither as HTML nor as a WARC archive"),
        (gzip.compress(ARCHIVE)[:20], "cannot be read: Compressed file ended"),
        (b"", "begins neither as HTML"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError) as raised:
        read(WebSource(kind="web", paths=[f"{tmp_path}/*"]), tmp_path)
    assert str(raised.value).startswith(f"corpus.sources.web.paths: {tmp_path}/a.csv: {told}")


def test_an_unreadable_page_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.html").write_bytes(b"<p>x</p>")
    units = list_units("web", WebSource(kind="web", paths=[str(tmp_path)]), tmp_path)
    (tmp_path / "a.html").unlink()
    account = Account()
    assert list(READERS["html"](units[0], account)) == []
    assert account.dropped == {"unreadable": 1}


def test_optional_paths_may_be_missing_and_others_may_not(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(b"<p>x</p>")
    optional = ["package:not_installed_here/x.html", f"{tmp_path}/none/*.html", str(tmp_path / "a.html")]
    documents, _ = read(WebSource(kind="web", paths=[str(tmp_path)], optional_paths=optional), tmp_path)
    assert [document.text for document in documents] == ["x"]
    with pytest.raises(DataError, match=r"corpus\.sources\.web\.paths: '.*none.*' matches no file"):
        read(WebSource(kind="web", paths=[f"{tmp_path}/none/*.html"]), tmp_path)


def test_an_archive_cut_off_in_the_middle_is_refused_by_name(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    for share in (0.1, 0.5, 0.9999):
        path = tmp_path / "cut.warc.gz"
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError) as raised:
            read(WebSource(kind="web", paths=[str(path)]), tmp_path)
        assert str(raised.value) == (
            f"{path}: damaged or cut off: Compressed file ended before the end-of-stream marker was reached. "
            "Fetch it again, or leave it out of paths."
        )


@pytest.mark.parametrize("content", [b"", b"GARBAGE\n" * 100, b"\x1f\x8b\x08\0garbage" * 20])
def test_an_archive_that_is_none_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.warc.gz"
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"bad\.warc\.gz: damaged or cut off: .* Fetch it again, or leave it out of paths"
    ):
        read(WebSource(kind="web", paths=[str(path)]), tmp_path)


def test_extraction_says_which_text_of_a_page_counts(tmp_path: Path) -> None:
    page = "<body><ul><li><a href='/'>Home</a></ul><main><p>The text of the page.</p></main><footer>Imprint</footer>"
    (tmp_path / "a.html").write_text(page)
    documents, _ = read(WebSource(kind="web", paths=[str(tmp_path)]), tmp_path)
    assert [document.text for document in documents] == ["The text of the page."]
    documents, _ = read(WebSource(kind="web", paths=[str(tmp_path)], extraction="all_text"), tmp_path)
    assert [document.text.split() for document in documents] == [
        ["Home", "The", "text", "of", "the", "page.", "Imprint"]
    ]


def test_the_texts_of_a_wet_archive_are_documents_as_they_are(tmp_path: Path) -> None:
    def write(text: bytes, language: str) -> bytes:
        head = "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://a.org/\r\nContent-Type: text/plain\r\n"
        head += f"WARC-Identified-Content-Language: {language}\r\nContent-Length: {len(text)}\r\n\r\n"
        return gzip.compress(head.encode() + text + b"\r\n\r\n")

    content = (
        write("Größe < 5 & <b>".encode(), "deu,eng") + write(b"caf\xe9", "") + write(b"a\0b", "eng") + write(b"", "")
    )
    (tmp_path / "a.warc.wet.gz").write_bytes(content)
    documents, dropped = read(WebSource(kind="web", paths=[str(tmp_path)], licence="CC0-1.0"), tmp_path)
    assert documents == [
        Document("Größe < 5 & <b>", "http://a.org/", "CC0-1.0", "de"),
        Document("caf\ufffd", "http://a.org/", "CC0-1.0"),
    ]
    assert dropped == {"binary": 1, "no_text": 1}


def test_a_page_that_would_take_too_much_memory_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_MAX_PAGE_BYTES", 5_000)
    monkeypatch.setattr(web, "_MAX_TAGS", 100)
    (tmp_path / "long.html").write_bytes(b"<p>" + b"word " * 1000)
    (tmp_path / "tags.html").write_bytes(b"<p>x" * 101)
    (tmp_path / "fits.html").write_bytes(b"<p>x" * 100)
    documents, dropped = read(WebSource(kind="web", paths=[str(tmp_path)]), tmp_path)
    assert [Path(document.origin).name for document in documents] == ["fits.html"]
    assert dropped == {"too_large": 2}


def test_a_damaged_record_in_the_middle_of_a_crawl_costs_itself(archive: Path, tmp_path: Path) -> None:
    whole = bytearray(archive.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 50] = bytes(50)
    (tmp_path / "a.warc.gz").write_bytes(whole)
    documents, dropped = read(WebSource(kind="web", paths=[str(tmp_path)], extraction="all_text"), tmp_path)
    assert len(documents) == NUM_CRAWLED - 1
    assert dropped == {"damaged_record": 1}
