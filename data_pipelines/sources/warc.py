"""WARC archives of pages and WET archives of their text.

`warc_records` reads records, warcio decodes what a server sent. HTML responses answered with 200 and conversions to
plain text are pages; of records of other types, those that may hold some are counted.
"""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from warcio.recordloader import ArcWarcRecord
from warcio.statusandheaders import StatusAndHeaders, StatusAndHeadersParser

from data_pipelines.account import Account
from data_pipelines.sources.compressed import MAX_RECORD_BYTES
from data_pipelines.sources.language_codes import find_language_code
from data_pipelines.sources.warc_records import read_records

_READ_BYTES = 1 << 20
_ENCODINGS = ("identity", "gzip", "deflate")
_HEADERS = StatusAndHeadersParser([], verify=False)


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


def read_pages(name: str, account: Account) -> Iterator[Page]:
    """Pages of an archive: its HTML responses, and its conversions to plain text.

    Args:
        name: path or address of the archive.
        account: counts records that are damaged, too large, of a type that is not read, or no page answered with 200.

    Raises:
        EOFError: the archive is cut off.
        ValueError: it holds something else.
        OSError: it cannot be read.
        zlib.error: its compression is damaged, and nothing can be read after that.
    """
    for number, (headers, block) in enumerate(read_records(name, account)):
        match str(headers.get_header("WARC-Type") or "").lower():
            case "response":
                page = _to_page(headers, block, name)
            case "conversion":
                page = _to_text(headers, block, name)
            case "warcinfo" | "request" | "metadata":
                continue  # about pages, and in every archive
            case "resource" | "revisit" | "continuation" as kind:
                page = f"{kind}_record"
            case _:
                page = "unknown_record"
        if isinstance(page, str):
            account.drop(page, _find_url(headers, name))
        else:
            yield replace(page, number=number)


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
