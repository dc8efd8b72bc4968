"""Web pages: HTML files, WARC archives, and WET archives of plain text.

A page that cannot be parsed, is no HTML or was not answered with 200 is counted and left out.
"""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

from data_pipelines.account import Account
from data_pipelines.document import Document
from data_pipelines.sources.compressed import open_decompressed
from data_pipelines.sources.html import extract_text
from data_pipelines.sources.main_text import extract_main_text
from data_pipelines.sources.pydoc_site import crawl_pydoc_site
from data_pipelines.sources.storage import StoredFile, ends_in, open_file, strip_address
from data_pipelines.sources.unit import Unit, find_files, group_files, look_at, read_file, refuse_none
from data_pipelines.sources.warc import Page, read_pages
from llmtrain.config.corpus import WebSource
from llmtrain.errors import DataError

_HTML, _WARC = (".html", ".htm", ".xhtml"), (".warc", ".warc.gz", ".wet", ".wet.gz")
_LOOKED_AT_BYTES = 4096
_HTML_BEGINNING = re.compile(
    rb"(?is)\A(?:\xef\xbb\xbf)?\s*(?:<\?xml.*?\?>\s*)?(?:<!--.*?-->\s*)*"
    rb"<(?:!doctype html|html|head|title|meta|link|body|h1|p|div)\b"
)
# A parsed page takes some 20 bytes of memory for each of its own, and 350 for each tag.
_MAX_PAGE_BYTES, _MAX_TAGS = 16_000_000, 1_000_000


def list_units(name: str, source: WebSource, downloads: Path) -> list[Unit]:
    """Units of a source; `pydoc:` is crawled now, unless it was before.

    Args:
        name: of the source.
        source: its configuration.
        downloads: where a crawl is kept.

    Raises:
        DataError: a path matches nothing, a storage does not answer, or the crawl failed.
    """
    endings = (*_HTML, *_WARC)
    files = find_files(name, [path for path in source.paths if path != "pydoc:"], endings)
    files += find_files(name, source.optional_paths, endings, is_optional=True)
    if "pydoc:" in source.paths:
        files.append(look_at(crawl_pydoc_site(downloads / "pydoc.warc.gz").resolve(), "pydoc:"))
    files = list({file.name: file for file in files}.values())
    kinds = [_find_kind(name, file) for file in files]
    archives = [file for file, kind in zip(files, kinds, strict=True) if kind == "warc"]
    pages = [file for file, kind in zip(files, kinds, strict=True) if kind == "html"]
    units = [
        Unit("warc", "", (file.name,), source.licence, extraction=source.extraction, listed=(file,))
        for file in archives
    ]
    units += group_files("html", "", pages, source.licence, extraction=source.extraction)
    return refuse_none(name, units, f"those below a folder end in {', '.join(endings)}")


def _find_kind(name: str, file: StoredFile) -> str:
    """`warc` or `html`: by its ending, else by how it begins.

    Raises:
        DataError: it is neither.
    """
    plain = strip_address(file.name)
    if ends_in(plain, _HTML) or ends_in(plain, _WARC):
        return "warc" if ends_in(plain, _WARC) else "html"
    try:
        with open_decompressed(file.name) as stream:
            beginning = stream.read(_LOOKED_AT_BYTES)
        with open_file(file.name) as raw:
            is_plain = raw.read(len(beginning)) == beginning
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(f"corpus.sources.{name}.paths: {file.name}: cannot be read: {error}. Leave it out.") from error
    if beginning.startswith(b"WARC/"):
        return "warc"
    if is_plain and _HTML_BEGINNING.match(beginning):
        return "html"
    raise DataError(
        f"corpus.sources.{name}.paths: {file.name}: begins neither as HTML nor as a WARC archive, and does not end in "
        f"{', '.join((*_HTML, *_WARC))}. Leave it out."
    )


def read_html_files(unit: Unit, account: Account) -> Iterator[Document]:
    """A document per HTML file."""
    for name in unit.files:
        html = read_file(name, account)
        if html is not None:
            label = unit.label(name)
            yield from _to_document(Page(label, html, None), unit, label, account)


def read_warc(unit: Unit, account: Account) -> Iterator[Document]:
    """A document per HTML response or conversion to text of a WARC archive.

    Raises:
        DataError: the archive is damaged or cut off.
    """
    for name in unit.files:
        try:
            for page in read_pages(name, account):
                yield from _to_document(page, unit, f"{unit.label(name)}#{page.number}", account)
        except (EOFError, ValueError, OSError, zlib.error) as error:
            raise DataError(
                f"{name}: damaged or cut off: {error}. Fetch it again, or leave it out of paths."
            ) from error


def _to_document(page: Page, unit: Unit, place: str, account: Account) -> Iterator[Document]:
    if b"\0" in page.content[:4096]:
        account.drop("binary", page.url)
        return
    if page.is_html and (len(page.content) > _MAX_PAGE_BYTES or page.content.count(b"<") > _MAX_TAGS):
        account.drop("too_large", page.url)
        return
    extract = extract_main_text if unit.extraction == "main_text" else extract_text
    try:
        text = extract(page.content, page.charset) if page.is_html else page.content.decode("utf-8-sig", "replace")
    except ValueError:
        account.drop("not_parsable", page.url)
        return
    if not text:
        account.drop("no_text", page.url)
        return
    yield Document(text, page.url, unit.licence, page.language, place=place)
