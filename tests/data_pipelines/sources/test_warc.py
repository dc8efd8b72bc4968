import gzip
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from data_pipelines.sources import warc
from data_pipelines.sources.warc import Page, read_pages

HTML = b"<html><body><p>A page.</p></body></html>"
HTTP = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"


def record(block: bytes, url: str = "http://a.org/", kind: str = "response", length: str | None = None) -> bytes:
    length = str(len(block)) if length is None else length
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + block + b"\r\n\r\n"


def response(headers: str = "Content-Type: text/html", body: bytes = HTML, status: str = "200 OK") -> bytes:
    return record(f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n".encode() + body)


def read(path: Path, content: bytes | Iterable[bytes]) -> tuple[list[Page], Counter[str]]:
    path.write_bytes(content if isinstance(content, bytes) else b"".join(content))
    dropped = Counter[str]()
    return list(read_pages(path, dropped)), dropped


GOOD = record(HTTP + HTML)


def test_plain_and_gzip_by_record_and_as_a_whole_give_the_same(tmp_path: Path) -> None:
    content = [
        record(b"software: x\r\n", kind="warcinfo"),
        GOOD,
        record(b"GET / HTTP/1.1\r\n\r\n", kind="request"),
        GOOD,
    ]
    expected = [Page("http://a.org/", HTML, "utf-8")] * 2
    for name, encoded in {
        "plain.warc": b"".join(content),
        "by_record.warc.gz": b"".join(map(gzip.compress, content)),
        "whole.warc.gz": gzip.compress(b"".join(content)),
        "gzip_under_another_name.warc": b"".join(map(gzip.compress, content)),
    }.items():
        pages, dropped = read(tmp_path / name, encoded)
        assert pages == expected
        assert not dropped


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (record(HTTP + HTML, length="many"), "damaged_record"),
        (record(HTTP + HTML, length="-5"), "damaged_record"),
        (record(HTTP + HTML).replace(b"Content-Length", b"Content-Size"), "damaged_record"),
        (b"\xff\xfe garbage between records \x00\r\nmore of it\r\n", "damaged_record"),
        (response(status="404 Not Found"), "not_an_html_page"),
        (response("Content-Type: image/png", b"\x89PNG"), "not_an_html_page"),
        (record(b"20260101 a.org 127.0.0.1", "dns:a.org"), "not_an_html_page"),
        (record(b""), "not_an_html_page"),
        (record(HTML), "not_an_html_page"),
        (response("Content-Encoding: br\r\nContent-Type: text/html", b"\x1b\x03"), "unknown_encoding"),
    ],
)
def test_a_bad_record_costs_itself_and_is_counted(tmp_path: Path, damaged: bytes, reason: str) -> None:
    pages, dropped = read(tmp_path / "a.warc", [GOOD, damaged, GOOD])
    assert [page.html for page in pages] == [HTML, HTML]
    assert dropped == {reason: 1}


def test_a_record_longer_or_shorter_than_it_says_is_resumed_at_the_next_one(tmp_path: Path) -> None:
    too_short = record(HTTP + HTML, "http://short.org/", length=str(len(HTTP) + 10))
    pages, dropped = read(tmp_path / "short.warc", [GOOD, too_short, GOOD])
    assert [page.url for page in pages] == ["http://a.org/", "http://short.org/", "http://a.org/"]
    assert dropped == {"damaged_record": 1}
    too_long = record(HTTP + HTML, "http://long.org/", length=str(len(HTTP + HTML) + len(GOOD) - 10))
    pages, dropped = read(tmp_path / "long.warc", [too_long, GOOD, GOOD])
    assert [page.url for page in pages] == ["http://long.org/", "http://a.org/"]
    assert dropped == {"damaged_record": 1}


def test_what_a_server_encoded_is_decoded(tmp_path: Path) -> None:
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HTML), HTML)
    pages, _ = read(
        tmp_path / "a.warc",
        [
            response("Content-Type: text/html\r\nContent-Encoding: gzip", gzip.compress(HTML)),
            response("Content-Type: text/html\r\nTransfer-Encoding: chunked", chunked),
            response('Content-Type: TEXT/HTML; Charset="ISO-8859-1"; x=y'),
            response("Content-Type: application/xhtml+xml\r\nContent-Encoding: identity"),
            response("X-Nothing: said"),
            response("a line without a colon\r\nContent-Type: text/html\r\nContent-Encoding: gzip"),
        ],
    )
    assert [page.html for page in pages] == [HTML] * 6
    assert [page.charset for page in pages] == [None, None, "iso-8859-1", None, None, None]


def test_brackets_around_an_address_are_taken_off(tmp_path: Path) -> None:
    pages, _ = read(tmp_path / "a.warc", [record(HTTP + HTML, "<http://a.org/>"), record(HTTP + HTML, "")])
    assert [page.url for page in pages] == ["http://a.org/", "a.warc"]


def test_a_huge_record_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warc, "_MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(warc, "_READ_BYTES", 300)
    pages, dropped = read(tmp_path / "a.warc", [record(HTTP + b"x" * 2000), GOOD])
    assert [page.html for page in pages] == [HTML]
    assert dropped == {"too_large": 1}


@pytest.mark.parametrize("keep", [20, 60, 105, 130, -30, -5])
def test_an_archive_that_is_cut_off_is_refused_plain_and_gzip(tmp_path: Path, keep: int) -> None:
    cut = GOOD + GOOD[:keep]
    with pytest.raises(EOFError, match=r"it ends inside|Compressed file ended"):
        read(tmp_path / "plain.warc", cut)
    compressed = gzip.compress(GOOD) * 2
    with pytest.raises(EOFError, match="Compressed file ended before the end-of-stream marker"):
        read(tmp_path / "gzip.warc.gz", compressed[: len(compressed) // 2 + 30 + keep % 30])
    with pytest.raises(EOFError, match="it ends inside"):
        read(tmp_path / "whole.warc.gz", gzip.compress(cut))


def test_damaged_compression_is_refused(tmp_path: Path) -> None:
    compressed = bytearray(gzip.compress(GOOD * 50, mtime=0))
    compressed[-6] ^= 0xFF
    with pytest.raises(OSError, match="CRC check failed"):
        read(tmp_path / "a.warc.gz", bytes(compressed))


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip file", b"<html></html>", b"\r\n", b""])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"not with a WARC record|it is empty"):
        read(tmp_path / "a.warc", content)
