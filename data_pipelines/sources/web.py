"""Web pages: HTML files and WARC archives.

A page that cannot be parsed, is no HTML or was not answered with 200 is counted and left out.
"""

import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.document import Document
from data_pipelines.sources.html import extract_text
from data_pipelines.sources.pydoc_site import crawl_pydoc_site
from data_pipelines.sources.unit import Unit, expand_path, expand_paths, group_files, list_files, read_file
from data_pipelines.sources.warc import Page, read_pages
from llmtrain.config.corpus import WebSource
from llmtrain.errors import DataError

_HTML, _WARC = (".html", ".htm", ".xhtml"), (".warc", ".warc.gz")


def list_units(name: str, source: WebSource, downloads: Path) -> list[Unit]:
    """Units of a source; `pydoc:` is crawled now, unless it was before.

    Args:
        name: of the source.
        source: its configuration.
        downloads: where a crawl is kept.

    Raises:
        DataError: a path matches nothing, or the crawl failed.
    """
    paths = expand_paths(name, [path for path in source.paths if path != "pydoc:"])
    paths += [match for path in source.optional_paths for match in expand_path(path)]
    if "pydoc:" in source.paths:
        paths.append(crawl_pydoc_site(downloads / "pydoc.warc.gz"))
    files = list_files(paths, (*_HTML, *_WARC))
    archives = [file for file in files if file.name.endswith(_WARC)]
    pages = [file for file in files if not file.name.endswith(_WARC)]
    units = [Unit("warc", "", (str(archive),), source.licence) for archive in archives]
    return units + group_files("html", "", pages, source.licence)


def read_html_files(unit: Unit, dropped: Counter[str]) -> Iterator[Document]:
    """A document per HTML file."""
    for name in unit.files:
        html = read_file(Path(name), dropped)
        if html is not None:
            yield from _to_document(Page(name, html, None), unit.licence, dropped)


def read_warc(unit: Unit, dropped: Counter[str]) -> Iterator[Document]:
    """A document per HTML response of a WARC archive.

    Raises:
        DataError: the archive is damaged or cut off.
    """
    for name in unit.files:
        try:
            for page in read_pages(Path(name), dropped):
                yield from _to_document(page, unit.licence, dropped)
        except (EOFError, ValueError, OSError, zlib.error) as error:
            raise DataError(
                f"{name}: damaged or cut off: {error}. Fetch it again, or leave it out of paths."
            ) from error


def _to_document(page: Page, licence: str, dropped: Counter[str]) -> Iterator[Document]:
    if b"\0" in page.html[:4096]:
        dropped["binary"] += 1
        return
    try:
        text = extract_text(page.html, page.charset)
    except ValueError:
        dropped["not_parsable"] += 1
        return
    yield Document(text, page.url, licence)
