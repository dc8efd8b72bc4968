"""MediaWiki XML dumps, plain or compressed, read as a stream.

Redirects, pages outside of the article namespace, disambiguation pages and articles that cannot be parsed are counted
and left out. The title is the first line, as a heading; of several revisions the first in the dump counts.
"""

import contextlib
import re
from collections.abc import Iterator
from xml.parsers import expat

import mwxml

from data_pipelines.account import Account
from data_pipelines.document import Document
from data_pipelines.sources.compressed import open_decompressed
from data_pipelines.sources.storage import strip_address
from data_pipelines.sources.unit import Unit, find_files, refuse_none
from data_pipelines.sources.wikitext import HIDDEN_PREFIXES, render_wikitext
from llmtrain.config.corpus import WikipediaSource
from llmtrain.errors import DataError

_ARTICLES, _FILES, _CATEGORIES = 0, 6, 14
_ENDINGS = (".xml", ".xml.bz2", ".xml.gz", ".xml.zst")
_XML_LANGUAGE = "xml:lang"
# {{Disambiguation}}, {{Disambig|geo}}, {{Hndis|...}}, and the names in other large editions.
_DISAMBIGUATION = re.compile(
    r"(?i)\{\{\s*(?:dab|hndis|geodis|(?:[a-z]+[ _]){0,4}disambig(?:uation)?(?:[ _](?:page|cleanup))?"
    r"|begriffsklärung|homonymie|desambiguación|disambigua|doorverwijspagina|неоднозначность|пояснение)\s*(?:\||\}\})"
)
_TOLD_CHARACTERS = 150  # mwxml puts half a kilobyte of the file into its message


def list_units(name: str, source: WikipediaSource) -> list[Unit]:
    """One unit per dump file.

    Raises:
        DataError: a path matches nothing, or a storage does not answer.
    """
    files = find_files(name, source.paths, _ENDINGS)
    rule = "" if source.disambiguation else "no disambiguation"
    units = [Unit("wikipedia", rule, (file.name,), source.licence, listed=(file,)) for file in files]
    return refuse_none(name, units, f"those below a folder end in {', '.join(_ENDINGS)}")


def read_dump(unit: Unit, account: Account) -> Iterator[Document]:
    """A document per article.

    Raises:
        DataError: the dump is damaged, cut off, or no MediaWiki dump.
    """
    for name in unit.files:
        label = strip_address(name).rpartition("/")[2]
        try:
            language = _read_head(name)
            with open_decompressed(name) as file:
                dump = mwxml.Dump.from_file(file)
                hidden = _name_hidden(dump)
                for page in dump.pages:
                    text = _read_page(page, f"{label}#{page.id}", hidden, account, disambiguation=not unit.root)
                    if text is not None:
                        place = f"{unit.label(name)}#{page.id}"
                        yield Document(text, f"{label}#{page.id}", unit.licence, language, place=place)
        except Exception as error:  # mwxml also lets TypeError, AttributeError and AssertionError through
            told = str(error)[:_TOLD_CHARACTERS] or type(error).__name__
            raise DataError(
                f"{name}: damaged, cut off, or no MediaWiki dump: {told}. Fetch it again, or leave it out of paths."
            ) from error


class _HeadRead(Exception):  # noqa: N818
    """Ends the parse; is no error."""


def _read_head(name: str) -> str:
    """The language of the dump. A document type, the only place for entities that grow or read files, is refused."""
    parser, language = expat.ParserCreate(), ""

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which no dump has and which can define entities without end")

    def note(_: str, attributes: dict[str, str]) -> None:
        nonlocal language
        language = attributes.get(_XML_LANGUAGE, "")
        raise _HeadRead

    parser.StartDoctypeDeclHandler, parser.StartElementHandler = refuse, note
    with open_decompressed(name) as file, contextlib.suppress(_HeadRead):
        parser.ParseFile(file)
    return language


def _name_hidden(dump: mwxml.Dump) -> tuple[str, ...]:
    names = [space.name for space in dump.site_info.namespaces or [] if space.id in (_FILES, _CATEGORIES)]
    return (*HIDDEN_PREFIXES, *(f"{name.lower()}:" for name in names if name))


def _read_page(
    page: mwxml.Page, origin: str, hidden: tuple[str, ...], account: Account, *, disambiguation: bool
) -> str | None:
    if page.namespace != _ARTICLES:
        account.drop("not_an_article", origin, page.title or "")
        return None
    if page.redirect is not None:
        account.drop("redirect", origin, page.title or "")
        return None
    wikitext = next((revision.text for revision in page), None) or ""
    if not disambiguation and _DISAMBIGUATION.search(wikitext):
        account.drop("disambiguation", origin, page.title or "")
        return None
    try:
        return f"# {page.title}\n\n{render_wikitext(wikitext, page.title, hidden)}"
    except ValueError:
        account.drop("not_parsable", origin, page.title or "")
        return None
