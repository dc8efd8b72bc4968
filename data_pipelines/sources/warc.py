"""WARC archives of pages and WET archives of their text, plain or gzip.

One bad record costs one record: the next one begins at the next line that opens a record, or, where compression is
damaged, at the next member that does. An archive that is cut off, or in which nothing can be read after the damage, is
refused. warcio parses headers and decodes what a server sent; its own iterator isn't used, since it ends in silence at
both.
"""

import io
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO, cast

from warcio.recordloader import ArcWarcRecord
from warcio.statusandheaders import StatusAndHeaders, StatusAndHeadersParser

from data_pipelines.sources.compressed import MAX_RECORD_BYTES
from data_pipelines.sources.gzip_members import DamagedMemberError, GzipMembers
from data_pipelines.sources.language_codes import find_language_code
from data_pipelines.sources.storage import open_file

_VERSION = b"WARC/"
_MAX_HEAD_BYTES = 1 << 20
_READ_BYTES = 1 << 20
_MAX_LENGTH_DIGITS = 15
_ENCODINGS = ("identity", "gzip", "deflate")
_HEADERS = StatusAndHeadersParser([], verify=False)

_Stream = BinaryIO | GzipMembers


@dataclass(frozen=True)
class Page:
    """One page as its server sent it, or the text that was taken from it."""

    url: str
    content: bytes
    charset: str | None
    is_html: bool = True
    language: str = ""
    """ISO 639-1 code, where the archive says it and there is one."""
    number: int = field(default=0, compare=False)
    """Of its record among those of the archive that can be read, from 0."""


def read_pages(name: str, dropped: Counter[str]) -> Iterator[Page]:
    """Pages of an archive: its HTML responses, and its conversions to plain text.

    Args:
        name: path or address of the archive.
        dropped: counts records that are damaged, too large, or no page answered with 200.

    Raises:
        EOFError: the archive is cut off.
        ValueError: it holds something else.
        OSError: it cannot be read.
        zlib.error: its compression is damaged, and nothing can be read after that.
    """
    with _open(name) as stream:
        for number, (headers, block) in enumerate(_read_records(stream, dropped)):
            match headers.get_header("WARC-Type"):
                case "response":
                    page = _to_page(headers, block, name)
                case "conversion":
                    page = _to_text(headers, block, name)
                case _:
                    continue
            if isinstance(page, str):
                dropped[page] += 1
            else:
                yield replace(page, number=number)


def _open(name: str) -> _Stream:
    file = cast(io.BufferedReader, open_file(name))
    return GzipMembers(file, _VERSION) if file.peek(2)[:2] == b"\x1f\x8b" else file


def _read_records(stream: _Stream, dropped: Counter[str]) -> Iterator[tuple[StatusAndHeaders, bytes]]:
    is_first, is_lost = True, False
    while True:
        try:
            line = stream.readline(_READ_BYTES)
            if not line:
                break
            if line.startswith(_VERSION):
                is_first = is_lost = False
                record = _read_record(stream, line)
                if isinstance(record, str):
                    dropped[record] += 1
                    is_lost = record == "damaged_record"
                else:
                    yield record
            elif is_first:
                raise ValueError(f"begins with {line[:40]!r}, not with a WARC record")
            elif line.strip() and not is_lost:
                dropped["damaged_record"] += 1
                is_lost = True
        except DamagedMemberError:
            dropped["damaged_record"] += not is_lost
            is_first = is_lost = False
    if is_first:
        raise ValueError("it is empty")


def _read_record(stream: _Stream, line: bytes) -> tuple[StatusAndHeaders, bytes] | str:
    """The record that begins with this line; else why it is left out."""
    head = _read_head(stream)
    if head is None:
        return "damaged_record"
    headers = _HEADERS.parse(io.BytesIO(line + head))
    length = headers.get_header("Content-Length") or ""
    if not (length.isascii() and length.isdecimal()) or len(length) > _MAX_LENGTH_DIGITS:
        return "damaged_record"
    if int(length) > MAX_RECORD_BYTES:
        _skip(stream, int(length))
        return "too_large"
    return headers, _read_exactly(stream, int(length))


def _read_head(stream: _Stream) -> bytes | None:
    """The lines up to an empty one; None when they don't end within reason."""
    lines: list[bytes] = []
    size = 0
    while line := stream.readline(_READ_BYTES):
        lines.append(line)
        size += len(line)
        if not line.strip():
            return b"".join(lines)
        if size > _MAX_HEAD_BYTES:
            return None
    raise EOFError("it ends inside the headers of a record")


def _read_exactly(stream: _Stream, length: int) -> bytes:
    block = stream.read(length)
    if len(block) < length:
        raise EOFError(f"it ends inside a record of {length:,} bytes")
    return block


def _skip(stream: _Stream, length: int) -> None:
    while length:
        length -= len(_read_exactly(stream, min(length, _READ_BYTES)))


def _to_text(headers: StatusAndHeaders, block: bytes, name: str) -> Page | str:
    """The text of a conversion; else why there is none."""
    kind = (headers.get_header("Content-Type") or "text/plain").lower()
    if not kind.startswith("text/plain"):
        return "not_plain_text"
    # The most frequent language of a page comes first: "deu,eng".
    languages = headers.get_header("WARC-Identified-Content-Language") or ""
    language = find_language_code(languages.split(",")[0])
    return Page(_find_url(headers, name), block, None, is_html=False, language=language)


def _to_page(headers: StatusAndHeaders, block: bytes, name: str) -> Page | str:
    """The page of a response; else why there is none."""
    body = io.BytesIO(block)
    http = _HEADERS.parse(body) if block.startswith(b"HTTP/") else None
    kind = (http.get_header("Content-Type") or "text/html").lower() if http else ""
    if http is None or http.get_statuscode() != "200" or "html" not in kind:
        return "not_an_html_page"
    encoding = (http.get_header("Content-Encoding") or "identity").lower()
    if encoding not in _ENCODINGS:
        return "unknown_encoding"
    record = ArcWarcRecord("warc", "response", headers, body, http, None, len(block))
    try:
        html = _read_body(record)
    except (OSError, EOFError, ValueError, zlib.error):
        return "damaged_record"
    if html is None:
        return "too_large"
    _, _, charset = kind.partition("charset=")
    return Page(_find_url(headers, name), html, charset.split(";")[0].strip(" \"'") or None)


def _read_body(record: ArcWarcRecord) -> bytes | None:
    """What the server sent, decoded; None when that is more than a record may hold: 64 KB can become 64 MB."""
    stream, parts, size = record.content_stream(), [], 0
    while data := stream.read(_READ_BYTES):
        parts.append(data)
        size += len(data)
        if size > MAX_RECORD_BYTES:
            return None
    return b"".join(parts)


def _find_url(headers: StatusAndHeaders, name: str) -> str:
    url = headers.get_header("WARC-Target-URI") or name.rpartition("/")[2]
    return str(url).strip("<>")
