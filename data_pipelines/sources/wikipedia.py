"""MediaWiki XML dumps, plain or bz2, read as a stream.

Redirects and pages outside of the article namespace are counted and left out. The title is the first line.
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
                for page in mwxml.Dump.from_file(file):
                    if page.namespace != _ARTICLES:
                        dropped["not_an_article"] += 1
                    elif page.redirect is not None:
                        dropped["redirect"] += 1
                    else:
                        wikitext = next((revision.text for revision in page), None) or ""
                        yield Document(
                            f"{page.title}\n\n{render_wikitext(wikitext)}", f"{path.name}#{page.id}", unit.licence
                        )
        except (OSError, EOFError, ValueError, mwxml.errors.MalformedXML, SyntaxError) as error:
            raise DataError(
                f"{name}: damaged, cut off, or no MediaWiki dump: {error}. Fetch it again, or leave it out of paths."
            ) from error


def _open(path: Path) -> IO[bytes]:
    # Bytes, so that the XML parser finds out the encoding itself: some dumps are UTF-16.
    return bz2.open(path, "rb") if path.suffix == ".bz2" else path.open("rb")
