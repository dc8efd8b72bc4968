"""A folder of documents of every kind: an article, a life, Python of this machine, and pages of a manual."""

from pathlib import Path

import pytest

from data_pipelines.document import Document, identify, write_documents
from tests.helpers.texts import MODULES, stdlib_texts

ARTICLE = """# Abacus

The abacus (plural abaci; /\u02c8æbəkəs/), also called a counting frame, is a calculating tool. It was in use in the \
U.S. long before 1900, e.g. in schools. Dr. J. R. Smith wrote about it (see p. 3. of his book).

A counting board is a board on which counters were moved. The board was a table of wood.

## Roman abacus

The normal method of calculation in ancient Rome was by moving counters on a smooth table. Originally pebbles were used.

## Japanese abacus

This abacus came from China.

## See also

- Slide rule
"""
LIFE = """# Ada Byron

Ada Byron (10 December 1815 \u2013 27 November 1852) was an English mathematician and writer. She was the first to see \
that the machine had applications beyond pure calculation.

## Work

Byron was a gifted translator, and her notes were longer than the text. In 1842 she translated an article.
"""
PAGE = """Pydoc: module shelf

Functions

open(path, mode='r')
Open a shelf and return it. The mode is that of a file.

close()
Close the shelf.

The Shelf class is a mapping of names to objects that are kept on disk.

This is a sentence that needs another one before it.

The shelf.size property returns the number of books that stand on it.
"""


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "documents"
    wiki = [Document(text, text[2:10], "CC-BY-SA-4.0", "en", identify(text)) for text in (ARTICLE, LIFE)]
    code = [
        Document(text, f"{name}.py", "PSF-2.0", "python", identify(text))
        for name, text in zip(MODULES, stdlib_texts(), strict=True)
    ]
    write_documents(folder / "wiki.jsonl.zst", wiki)
    write_documents(folder / "code.jsonl.zst", code)
    write_documents(folder / "web.jsonl.zst", [Document(PAGE, "http://pydoc.localhost/shelf.html", "PSF-2.0")])
    return folder
