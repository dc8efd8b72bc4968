# ruff: noqa: RUF001
import bz2
import gzip
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from data_pipelines.account import Account
from data_pipelines.document import Document
from data_pipelines.sources import storage
from data_pipelines.sources.unit import Unit, expand_path
from data_pipelines.sources.wikipedia import list_units, read_dump
from llmtrain.config.corpus import WikipediaSource
from llmtrain.errors import DataError
from tests.data_pipelines.conftest import GENSIM_DUMP, NUM_PAGES

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="en">
<siteinfo><namespaces><namespace key="0" /><namespace key="1">Talk</namespace></namespaces></siteinfo>
"""
TAIL = "</mediawiki>\n"


def page(title: str, text: str, namespace: str = "<ns>0</ns>", extra: str = "") -> str:
    revision = f"<revision><id>1</id><text>{text}</text></revision>"
    return f"<page><title>{title}</title>{namespace}<id>7</id>{extra}{revision}</page>\n"


def read(path: Path, content: bytes | None = None) -> tuple[list[Document], Counter[str]]:
    if content is not None:
        path.write_bytes(content)
    account = Account()
    units = list_units("wikipedia", WikipediaSource(kind="wikipedia", paths=[str(path)]))
    return [document for unit in units for document in read_dump(unit, account)], account.dropped


def test_a_real_dump_gives_its_articles(small_dump: Path) -> None:
    documents, dropped = read(small_dump)
    anarchism = next(document for document in documents if document.text.startswith("# Anarchism\n\n"))
    assert "Anarchism is a political philosophy" in anarchism.text
    assert anarchism.origin == "small.xml#12"
    assert anarchism.language == "en"
    assert anarchism.licence == "CC-BY-SA-4.0"
    assert len(documents) + sum(dropped.values()) == NUM_PAGES
    assert dropped["redirect"] > 0
    for document in documents:
        markup = sum(document.text.count(mark) for mark in ("[[", "]]", "<ref", "'''"))
        assert markup < 1e-4 * len(document.text), document.origin


def test_bz2_in_one_and_many_streams_and_utf_16_give_the_same(small_dump: Path, tmp_path: Path) -> None:
    plain = small_dump.read_bytes()[:-13].split(b"  <page>")
    content = b"  <page>".join(plain[:25]) + TAIL.encode()
    expected, dropped = read(tmp_path / "plain.xml", content)
    assert len(expected) > 1
    middle = len(content) // 2
    utf_16 = ("<?xml version='1.0' encoding='utf-16'?>\n" + content.decode()).encode("utf-16")
    for name, encoded in {
        "one.xml.bz2": bz2.compress(content),
        "many.xml.bz2": bz2.compress(content[:middle]) + bz2.compress(content[middle:]),
        "one.xml.gz": gzip.compress(content),
        "one.xml.zst": zstandard.compress(content),
        "utf16.xml": utf_16,
        "utf16.xml.bz2": bz2.compress(utf_16),
    }.items():
        documents, again = read(tmp_path / name, encoded)
        assert [document.text for document in documents] == [document.text for document in expected]
        assert again == dropped


def test_redirects_other_namespaces_and_unparsable_articles_are_counted(tmp_path: Path) -> None:
    content = (
        HEAD
        + page("One", "First.")
        + page("Old", "#REDIRECT [[One]]", extra='<redirect title="One" />')
        + page("Talk:One", "Chat.", "<ns>1</ns>")
        + page("Talk:Old", "Chat.", "")
        + page("Endless", "{{a|" * 20_000)
        + page("Empty", "")
        + "<logitem><id>1</id></logitem>\n"
        + page("Last", "Second.")
        + TAIL
    )
    documents, dropped = read(tmp_path / "a.xml", content.encode())
    assert [document.text for document in documents] == ["# One\n\nFirst.", "# Empty\n\n", "# Last\n\nSecond."]
    assert dropped == {"redirect": 1, "not_an_article": 2, "not_parsable": 1}


def test_a_dump_without_pages_gives_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "a.xml", (HEAD + TAIL).encode()) == ([], {})


def message(path: Path, content: bytes) -> str:
    with pytest.raises(DataError) as raised:
        read(path, content)
    text = str(raised.value)
    assert text.startswith(f"{path}: damaged, cut off, or no MediaWiki dump: ")
    assert text.endswith(". Fetch it again, or leave it out of paths.")
    assert len(text) < len(str(path)) + 300
    return text


def test_a_dump_that_is_cut_off_is_refused_by_name(small_dump: Path, dump: Path, tmp_path: Path) -> None:
    plain, compressed = small_dump.read_bytes(), dump.read_bytes()
    assert "no element found" in message(tmp_path / "cut.xml", plain[: len(plain) // 2])
    assert "Compressed file ended" in message(tmp_path / "cut.xml.bz2", compressed[: len(compressed) // 20])
    assert "Compressed file ended" in message(tmp_path / "end.xml.bz2", bz2.compress(plain)[:-3])
    assert "no element found" in message(tmp_path / "inner.xml.bz2", bz2.compress(plain[:100_000]))


def test_a_damaged_dump_is_refused_by_name(small_dump: Path, tmp_path: Path) -> None:
    compressed = bytearray(bz2.compress(small_dump.read_bytes()))
    compressed[-8] ^= 0xFF  # in the checksum
    assert "Invalid data stream" in message(tmp_path / "flip.xml.bz2", bytes(compressed))
    assert "mismatched tag" in message(tmp_path / "tags.xml", (HEAD + "<page></revision>" + TAIL).encode())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no element found"),
        (b"\x00\x01binary\xff" * 200, "not well-formed"),
        (b"<html><body>no dump</body></html>", "AssertionError"),
        ((HEAD + "<page><title /><ns>0</ns><id>1</id></page>" + TAIL).encode(), "NoneType"),
        ((HEAD + "<page><title>A</title><ns>zero</ns></page>" + TAIL).encode(), "invalid literal for int"),
        ((HEAD + "<other />" + TAIL).encode(), "Unexpected tag"),
    ],
)
def test_what_is_no_dump_is_refused_by_name(tmp_path: Path, content: bytes, told: str) -> None:
    assert told in message(tmp_path / "bad.xml", content)


def test_a_real_file_that_is_no_whole_dump_is_refused() -> None:
    path = expand_path(GENSIM_DUMP)[0].with_name("enwiki-table-markup.xml.bz2")
    with pytest.raises(DataError, match=r"enwiki-table-markup\.xml\.bz2: .*<siteinfo> tag not found"):
        read(path)


def test_a_path_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus\.sources\.wikipedia\.paths: '.*none\.xml' matches no file"):
        read(tmp_path / "none.xml")


@pytest.mark.parametrize(
    "definition",
    [
        '<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">',
        '<!ENTITY c SYSTEM "file:///etc/passwd">',
    ],
)
def test_entities_that_grow_or_read_files_are_refused(tmp_path: Path, definition: str) -> None:
    content = f"<!DOCTYPE mediawiki [{definition}]>\n{HEAD}{page('One', '&c;')}{TAIL}"
    assert "it declares a document type" in message(tmp_path / "bomb.xml", content.encode())
    assert "it declares a document type" in message(tmp_path / "bomb16.xml", content.encode("utf-16"))


@pytest.mark.parametrize(
    "mark", ["{{disambiguation|geo}}", "{{Hndis|Adam}}", "{{Place name disambiguation}}", "{{dab}}"]
)
def test_disambiguation_pages_are_counted_unless_they_are_asked_for(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "a.xml"
    content = HEAD + page("Mercury", f"* a planet\n{mark}") + page("About", "No {{disambiguation needed}}.") + TAIL
    documents, dropped = read(path, content.encode())
    assert [document.text for document in documents] == ["# About\n\nNo."]
    assert dropped == {"disambiguation": 1}
    source = WikipediaSource(kind="wikipedia", paths=[str(path)], disambiguation=True)
    assert [len(list(read_dump(unit, Account()))) for unit in list_units("wikipedia", source)] == [2]


def test_files_and_categories_go_under_the_names_of_the_dump(tmp_path: Path) -> None:
    names = '<namespace key="6">Файл</namespace><namespace key="14">Категория</namespace></namespaces>'
    head = HEAD.replace("</namespaces>", names).replace('"en"', '"bg"')
    text = "Текст. [[Файл:a.jpg|thumb|картина]] [[Категория:Градове]]"
    documents, _ = read(tmp_path / "bg.xml", (head + page("А", text) + TAIL).encode())
    assert [(document.text, document.language) for document in documents] == [("# А\n\nТекст.", "bg")]


def test_a_dump_behind_an_address_is_read(tmp_path: Path) -> None:
    content = HEAD + page("One", "First.") + page("Two", "Second.") + TAIL
    (tmp_path / "enwiki.xml.bz2").write_bytes(bz2.compress(content.encode()))
    with zipfile.ZipFile(tmp_path / "dumps.zip", "w") as archive:
        archive.write(tmp_path / "enwiki.xml.bz2", "dumps/enwiki.xml.bz2")
    source = WikipediaSource(kind="wikipedia", paths=[f"zip://dumps/*.bz2::{tmp_path}/dumps.zip"])
    (unit,) = list_units("wikipedia", source)
    assert [size for _, size, _ in unit.describe_inputs()] == [(tmp_path / "enwiki.xml.bz2").stat().st_size]
    documents = list(read_dump(unit, Account()))
    assert [document.text for document in documents] == ["# One\n\nFirst.", "# Two\n\nSecond."]
    assert documents[0].origin == "enwiki.xml.bz2#7"


def test_a_storage_that_went_away_ends_the_dump_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_WAIT_SECONDS", 0.0)
    unit = Unit("wikipedia", "", ("http://127.0.0.1:9/enwiki.xml",), "CC0-1.0")
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/enwiki\.xml: "):
        list(read_dump(unit, Account()))
