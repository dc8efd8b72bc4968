import gzip
import random
import tempfile
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.account import Account
from data_pipelines.sources import gzip_members, warc, warc_records
from data_pipelines.sources.language_codes import find_language_code
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
    account = Account()
    return list(read_pages(str(path), account)), account.dropped


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
    assert [page.content for page in pages] == [HTML, HTML]
    assert dropped == {reason: 1}


def test_a_record_longer_or_shorter_than_it_says_is_resumed_at_the_next_one(tmp_path: Path) -> None:
    too_short = record(HTTP + HTML, "http://short.org/", length=str(len(HTTP) + 10))
    pages, dropped = read(tmp_path / "short.warc", [GOOD, too_short, GOOD])
    assert [page.url for page in pages] == ["http://a.org/", "http://a.org/"]
    assert dropped == {"damaged_record": 1}


NEIGHBOURS = [record(HTTP + HTML, f"http://{number}.org/") for number in range(3)]


@pytest.mark.parametrize("extra", [-30, -1, 5, 8, 20, 100, len(GOOD), len(GOOD) + 4, 1500, 70_000, 10**9, 10**14])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_length_that_lies_costs_its_record_alone(tmp_path: Path, extra: int, place: int) -> None:
    lie = record(HTTP + HTML, "http://lie.org/", length=str(len(HTTP + HTML) + extra))
    content = [*NEIGHBOURS[:place], lie, *NEIGHBOURS[place:]]
    expected = [f"http://{number}.org/" for number in range(3)]
    pages, dropped = read(tmp_path / "plain.warc", content)
    assert ([page.url for page in pages], dropped) == (expected, {"damaged_record": 1})
    pages, dropped = read(tmp_path / "by_record.warc.gz", map(gzip.compress, content))
    assert ([page.url for page in pages], dropped) == (expected, {"damaged_record": 1})
    pages, dropped = read(tmp_path / "whole.warc.gz", gzip.compress(b"".join(content)))
    if place or extra < 10**9:
        assert ([page.url for page in pages], dropped) == (expected, {"damaged_record": 1})


def test_many_lengths_that_lie_take_time_of_their_size(tmp_path: Path) -> None:
    lies = b"".join(record(b"", f"http://{number}.org/", length="60000000") for number in range(60_000))
    pages, dropped = read(tmp_path / "a.warc.gz", gzip.compress(record(b"", length=str(len(lies))) + lies + GOOD))
    assert (len(pages), dropped) == (1, {"damaged_record": 60_001})


def test_the_last_record_may_claim_more_than_its_member_holds(tmp_path: Path) -> None:
    lie = record(HTTP + HTML, "http://lie.org/", length="100000")
    pages, dropped = read(tmp_path / "a.warc.gz", [gzip.compress(GOOD), gzip.compress(lie)])
    assert (len(pages), dropped) == (1, {"damaged_record": 1})
    with pytest.raises(EOFError, match="it ends inside a record of 100,000 bytes"):
        read(tmp_path / "a.warc", [GOOD, lie])


def test_a_page_about_archives_is_whole_where_its_member_tells_its_end(tmp_path: Path) -> None:
    page = HTTP + HTML + b"\r\n\r\n" + record(HTTP + HTML, "http://forged.org/") + b"more"
    pages, dropped = read(tmp_path / "a.warc.gz", map(gzip.compress, [GOOD, record(page, "http://b.org/"), GOOD]))
    assert [page.url for page in pages] == ["http://a.org/", "http://b.org/", "http://a.org/"]
    assert pages[1].content.endswith(b"more")
    assert not dropped


def test_a_record_in_several_members_is_whole(tmp_path: Path) -> None:
    content = record(HTTP + HTML * 100)
    parts = [gzip.compress(content[:1000]), gzip.compress(content[1000:2000]), gzip.compress(content[2000:])]
    pages, dropped = read(tmp_path / "a.warc.gz", [gzip.compress(GOOD), *parts, gzip.compress(GOOD)])
    assert [page.content for page in pages] == [HTML, HTML * 100, HTML]
    assert not dropped


def test_records_of_types_that_are_not_read_are_counted(tmp_path: Path) -> None:
    kinds = ["warcinfo", "request", "metadata", "resource", "resource", "revisit", "continuation", "own"]
    pages, dropped = read(tmp_path / "a.warc", [record(HTML, kind=kind) for kind in kinds])
    assert not pages
    assert dropped == {"resource_record": 2, "revisit_record": 1, "continuation_record": 1, "unknown_record": 1}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4_000), st.binary(min_size=1, max_size=40)), min_size=1, max_size=3))
def test_damage_in_a_plain_archive_makes_no_page_that_was_not_there(damage: list[tuple[int, bytes]]) -> None:
    whole = b"".join(record(HTTP + HTML, f"http://{number}.org/") for number in range(9))
    for place, noise in damage:
        place %= len(whole)
        whole = whole[:place] + noise + whole[place + len(noise) :]
    with tempfile.TemporaryDirectory() as folder:
        try:
            pages, dropped = read(Path(folder) / "a.warc", whole)
        except (EOFError, ValueError):
            return
    assert len(pages) <= 9
    assert len(pages) + dropped.total() >= 7


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
    assert [page.content for page in pages] == [HTML] * 6
    assert [page.charset for page in pages] == [None, None, "iso-8859-1", None, None, None]


def test_brackets_around_an_address_are_taken_off(tmp_path: Path) -> None:
    pages, _ = read(tmp_path / "a.warc", [record(HTTP + HTML, "<http://a.org/>"), record(HTTP + HTML, "")])
    assert [page.url for page in pages] == ["http://a.org/", "a.warc"]


def test_a_huge_record_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warc_records, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(warc_records, "_PIECE_BYTES", 300)
    pages, dropped = read(tmp_path / "a.warc", [record(HTTP + b"x" * 2000), GOOD])
    assert [page.content for page in pages] == [HTML]
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
    with pytest.raises(zlib.error, match="incorrect data check"):
        read(tmp_path / "a.warc.gz", bytes(compressed))


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip file", b"<html></html>", b"\r\n", b""])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"not with a WARC record|it is empty"):
        read(tmp_path / "a.warc", content)


def conversion(text: bytes, headers: str = "Content-Type: text/plain") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://a.org/\r\n{headers}\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n%s\r\n\r\n" % (len(text), text)


def test_conversions_of_a_wet_archive_are_plain_text_with_the_language_that_is_noted(tmp_path: Path) -> None:
    language = "Content-Type: text/plain\r\nWARC-Identified-Content-Language"
    pages, dropped = read(
        tmp_path / "a.warc.wet.gz",
        gzip.compress(record(b"Software-Info: x\r\n", kind="warcinfo"))
        + gzip.compress(conversion(b"Guten Tag\n<b>", f"{language}: deu,eng"))
        + gzip.compress(conversion(b"Hello"))
        + gzip.compress(conversion(b"Hawaiian", f"{language}: haw"))
        + gzip.compress(conversion(b"%PDF-1.4", "Content-Type: application/pdf")),
    )
    assert pages == [
        Page("http://a.org/", b"Guten Tag\n<b>", None, is_html=False, language="de"),
        Page("http://a.org/", b"Hello", None, is_html=False),
        Page("http://a.org/", b"Hawaiian", None, is_html=False),
    ]
    assert dropped == {"not_plain_text": 1}


@pytest.mark.parametrize("place", [0, 1, 4, 12, 30, 120, -9, -6, -1])
def test_a_damaged_member_costs_itself_whatever_byte_it_is(tmp_path: Path, place: int) -> None:
    members = [gzip.compress(record(HTTP + HTML + b"%d" % number, f"http://a.org/{number}")) for number in range(5)]
    damaged = bytearray(members[2])
    damaged[place] ^= 0x15
    members[2] = bytes(damaged)
    pages, dropped = read(tmp_path / "a.warc.gz", members)
    urls = [page.url[-1] for page in pages]
    # Some bytes of a header (time, system) mean nothing.
    assert (urls, dropped) in [(list("0134"), {"damaged_record": 1}), (list("01234"), {})]
    assert place in (4,) or len(urls) == 4


def test_damage_in_a_long_member_is_passed_over_to_the_next_one(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(3_000_000)
    long, good = bytearray(gzip.compress(record(HTTP + noise))), gzip.compress(GOOD)
    long[1_000_000:1_000_200] = bytes(200)
    pages, dropped = read(tmp_path / "a.warc.gz", [good, bytes(long), good])
    assert [page.content for page in pages] == [HTML, HTML]
    assert dropped == {"damaged_record": 1}


def test_two_damaged_members_in_a_row_are_two_damaged_records(tmp_path: Path) -> None:
    good, bad = gzip.compress(GOOD), bytearray(gzip.compress(GOOD))
    bad[-7] ^= 1
    pages, dropped = read(tmp_path / "a.warc.gz", [good, bytes(bad), bytes(bad), good])
    assert [page.content for page in pages] == [HTML, HTML]
    assert 1 <= dropped["damaged_record"] <= 2


def test_zeros_after_the_last_member_are_padding(tmp_path: Path) -> None:
    pages, dropped = read(tmp_path / "a.warc.gz", [gzip.compress(GOOD), bytes(100_000)])
    assert len(pages) == 1
    assert not dropped


def test_members_are_read_the_same_however_the_file_is_cut_into_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"".join(gzip.compress(record(HTTP + HTML * number, f"http://a.org/{number}")) for number in range(30))
    expected = read(tmp_path / "a.warc.gz", content)
    assert len(expected[0]) == 30
    for size in (1, 7, 100):
        monkeypatch.setattr(gzip_members, "_READ_BYTES", size)
        monkeypatch.setattr(gzip_members, "_OUTPUT_BYTES", size)
        assert read(tmp_path / "a.warc.gz", content) == expected


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=40))
def test_any_damage_is_survived_counted_or_refused(place: int, noise: bytes) -> None:
    whole = b"".join(gzip.compress(record(HTTP + HTML, f"http://a.org/{number}"), mtime=0) for number in range(9))
    place %= len(whole)
    with tempfile.TemporaryDirectory() as folder:
        try:
            pages, _ = read(Path(folder) / "a.warc.gz", whole[:place] + noise + whole[place + len(noise) :])
        except (EOFError, ValueError, OSError, zlib.error):
            return
    assert len(pages) >= 6
    assert all(page.content == HTML for page in pages)


def test_a_length_that_lies_wildly_is_refused_or_counted(tmp_path: Path) -> None:
    pages, dropped = read(tmp_path / "a.warc", [record(HTTP + HTML, length="9" * 5000), GOOD])
    assert (len(pages), dropped) == (1, {"damaged_record": 1})
    pages, dropped = read(tmp_path / "b.warc", [record(HTTP + HTML, length="\u0663"), GOOD])
    assert (len(pages), dropped) == (1, {"damaged_record": 1})
    with pytest.raises(EOFError, match=r"it ends inside a record of 999,999,999,999 bytes"):
        read(tmp_path / "c.warc", [GOOD, record(HTTP + HTML, length="9" * 12)])


def test_headers_without_an_end_cost_a_record_and_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warc_records, "_MAX_HEAD_BYTES", 1000)
    pages, dropped = read(tmp_path / "a.warc", [b"WARC/1.0\r\n" + b"a: b\r\n" * 1000 + b"\r\n", GOOD])
    assert (len(pages), dropped) == (1, {"damaged_record": 1})


def test_a_body_that_expands_beyond_reason_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warc, "MAX_RECORD_BYTES", 3_000_000)
    bomb = gzip.compress(bytes(20_000_000))
    assert len(bomb) < 25_000
    content = [response("Content-Type: text/html\r\nContent-Encoding: gzip", bomb), GOOD]
    tracemalloc.start()
    pages, dropped = read(tmp_path / "a.warc.gz", map(gzip.compress, content))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(pages), dropped) == (1, {"too_large": 1})
    assert peak < 60_000_000


def test_codes_of_languages() -> None:
    codes = [find_language_code(code) for code in ("eng", "GER", " zho ", "de", "xx", "haw", "")]
    assert codes == ["en", "de", "zh", "de", "", "", ""]
