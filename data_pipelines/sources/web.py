"""Web pages: HTML files, WARC archives, and WET archives of plain text.

A page that cannot be parsed, is no HTML or was not answered with 200 is counted and left out.
"""

import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.document import Document
from data_pipelines.sources.html import extract_text
from data_pipelines.sources.main_text import extract_main_text
from data_pipelines.sources.pydoc_site import crawl_pydoc_site
from data_pipelines.sources.storage import strip_address
from data_pipelines.sources.unit import Unit, find_files, group_files, look_at, read_file
from data_pipelines.sources.warc import Page, read_pages
from llmtrain.config.corpus import WebSource
from llmtrain.errors import DataError

_HTML, _WARC = (".html", ".htm", ".xhtml"), (".warc", ".warc.gz", ".wet", ".wet.gz")
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
    archives = [file for file in files if strip_address(file.name).endswith(_WARC)]
    pages = [file for file in files if not strip_address(file.name).endswith(_WARC)]
    units = [
        Unit("warc", "", (file.name,), source.licence, extraction=source.extraction, listed=(file,))
        for file in archives
    ]
    return units + group_files("html", "", pages, source.licence, extraction=source.extraction)


def read_html_files(unit: Unit, dropped: Counter[str]) -> Iterator[Document]:
    """A document per HTML file."""
    for name in unit.files:
        html = read_file(name, dropped)
        if html is not None:
            label = unit.label(name)
            yield from _to_document(Page(label, html, None), unit, label, dropped)


def read_warc(unit: Unit, dropped: Counter[str]) -> Iterator[Document]:
    """A document per HTML response or conversion to text of a WARC archive.

    Raises:
        DataError: the archive is damaged or cut off.
    """
    for name in unit.files:
        try:
            for page in read_pages(name, dropped):
                yield from _to_document(page, unit, f"{unit.label(name)}#{page.number}", dropped)
        except (EOFError, ValueError, OSError, zlib.error) as error:
            raise DataError(
                f"{name}: damaged or cut off: {error}. Fetch it again, or leave it out of paths."
            ) from error


def _to_document(page: Page, unit: Unit, place: str, dropped: Counter[str]) -> Iterator[Document]:
    if b"\0" in page.content[:4096]:
        dropped["binary"] += 1
        return
    if page.is_html and (len(page.content) > _MAX_PAGE_BYTES or page.content.count(b"<") > _MAX_TAGS):
        dropped["too_large"] += 1
        return
    extract = extract_main_text if unit.extraction == "main_text" else extract_text
    try:
        text = extract(page.content, page.charset) if page.is_html else page.content.decode("utf-8-sig", "replace")
    except ValueError:
        dropped["not_parsable"] += 1
        return
    if not text:
        dropped["no_text"] += 1
        return
    yield Document(text, page.url, unit.licence, page.language, place=place)
