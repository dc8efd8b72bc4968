"""MediaWiki XML dumps, plain or bz2, read as a stream.

Redirects, pages outside of the article namespace and articles that cannot be parsed are counted and left out. The
title is the first line; of several revisions the first in the dump counts.
"""

import bz2
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import mwxml

from data_pipelines.document import Document
from data_pipelines.sources.unit import Unit, expand_paths, list_files
from data_pipelines.sources.wikitext import render_wikitext
from llmtrain.config.corpus import WikipediaSource
from llmtrain.errors import DataError

_ARTICLES = 0
_TOLD_CHARACTERS = 150  # mwxml puts half a kilobyte of the file into its message


def list_units(name: str, source: WikipediaSource) -> list[Unit]:
    """One unit per dump file.

    Raises:
        DataError: a path matches nothing.
    """
    files = list_files(expand_paths(name, source.paths), (".xml", ".xml.bz2"))
    return [Unit("wikipedia", "", (str(file),), source.licence) for file in files]


def read_dump(unit: Unit, dropped: Counter[str]) -> Iterator[Document]:
    """A document per article.

    Raises:
        DataError: the dump is damaged, cut off, or no MediaWiki dump.
    """
    for name in unit.files:
        path = Path(name)
        try:
            with _open(path) as file:
                for page in mwxml.Dump.from_file(file).pages:
                    text = _read_page(page, dropped)
                    if text is not None:
                        yield Document(text, f"{path.name}#{page.id}", unit.licence)
        except Exception as error:  # mwxml also lets TypeError, AttributeError and AssertionError through
            told = str(error)[:_TOLD_CHARACTERS] or type(error).__name__
            raise DataError(
                f"{name}: damaged, cut off, or no MediaWiki dump: {told}. Fetch it again, or leave it out of paths."
            ) from error


def _read_page(page: mwxml.Page, dropped: Counter[str]) -> str | None:
    if page.namespace != _ARTICLES:
        dropped["not_an_article"] += 1
        return None
    if page.redirect is not None:
        dropped["redirect"] += 1
        return None
    wikitext = next((revision.text for revision in page), None) or ""
    try:
        return f"{page.title}\n\n{render_wikitext(wikitext)}"
    except ValueError:
        dropped["not_parsable"] += 1
        return None


def _open(path: Path) -> IO[bytes]:
    # Bytes, so that the XML parser finds out the encoding itself: some dumps are UTF-16.
    return bz2.open(path, "rb") if path.suffix == ".bz2" else path.open("rb")
