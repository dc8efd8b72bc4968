"""WARC archives, plain or gzip -> HTML pages.

One bad record costs one record: the next one begins at the next line that opens a record. An archive that is cut off
or whose compression is damaged is refused. warcio parses headers and decodes what a server sent; its own iterator
isn't used, since it ends in silence at both.
"""

import gzip
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from warcio.bufferedreaders import BufferedReader
from warcio.recordloader import ArcWarcRecord
from warcio.statusandheaders import StatusAndHeaders, StatusAndHeadersParser

_VERSION = b"WARC/"
_MAX_RECORD_BYTES = 64_000_000
_READ_BYTES = 1 << 20
_HEADERS = StatusAndHeadersParser([], verify=False)


@dataclass(frozen=True)
class Page:
    """One HTML page as its server sent it."""

    url: str
    html: bytes
    charset: str | None


def read_pages(path: Path, dropped: Counter[str]) -> Iterator[Page]:
    """HTML pages of an archive.

    Args:
        path: of the archive.
        dropped: counts records that are damaged, too large, or no HTML page answered with 200.

    Raises:
        EOFError: the archive is cut off.
        ValueError: it holds something else.
        OSError: it cannot be read, or its compression is damaged.
        zlib.error: its compression is damaged.
    """
    with _open(path) as stream:
        for headers, block in _read_records(stream, dropped):
            if headers.get_header("WARC-Type") != "response":
                continue
            page = _to_page(headers, block, path.name)
            if isinstance(page, str):
                dropped[page] += 1
            else:
                yield page


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb")) if is_gzip else path.open("rb")


def _read_records(stream: BinaryIO, dropped: Counter[str]) -> Iterator[tuple[StatusAndHeaders, bytes]]:
    is_first, is_lost = True, False
    while line := stream.readline(_READ_BYTES):
        if not line.startswith(_VERSION):
            if is_first:
                raise ValueError(f"begins with {line[:40]!r}, not with a WARC record")
            if line.strip() and not is_lost:
                dropped["damaged_record"] += 1
                is_lost = True
            continue
        is_first = is_lost = False
        head = _read_head(stream)
        headers = _HEADERS.parse(io.BytesIO(line + head))
        length = headers.get_header("Content-Length") or ""
        if not length.isdecimal():
            dropped["damaged_record"] += 1
            is_lost = True
        elif int(length) > _MAX_RECORD_BYTES:
            dropped["too_large"] += 1
            _skip(stream, int(length))
        else:
            yield headers, _read_exactly(stream, int(length))
    if is_first:
        raise ValueError("it is empty")


def _read_head(stream: BinaryIO) -> bytes:
    lines: list[bytes] = []
    while line := stream.readline(_READ_BYTES):
        lines.append(line)
        if not line.strip():
            return b"".join(lines)
    raise EOFError("it ends inside the headers of a record")


def _read_exactly(stream: BinaryIO, length: int) -> bytes:
    block = stream.read(length)
    if len(block) < length:
        raise EOFError(f"it ends inside a record of {length:,} bytes")
    return block


def _skip(stream: BinaryIO, length: int) -> None:
    while length:
        length -= len(_read_exactly(stream, min(length, _READ_BYTES)))


def _to_page(headers: StatusAndHeaders, block: bytes, name: str) -> Page | str:
    """The page of a response; else why there is none."""
    body = io.BytesIO(block)
    http = _HEADERS.parse(body) if block.startswith(b"HTTP/") else None
    kind = (http.get_header("Content-Type") or "text/html").lower() if http else ""
    if http is None or http.get_statuscode() != "200" or "html" not in kind:
        return "not_an_html_page"
    encoding = (http.get_header("Content-Encoding") or "identity").lower()
    if encoding != "identity" and encoding not in BufferedReader.get_supported_decompressors():
        return "unknown_encoding"
    html = ArcWarcRecord("warc", "response", headers, body, http, None, len(block)).content_stream().read()
    _, _, charset = kind.partition("charset=")
    url = (headers.get_header("WARC-Target-URI") or name).strip("<>")
    return Page(url, html, charset.split(";")[0].strip(" \"'") or None)
