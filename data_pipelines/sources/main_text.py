"""HTML -> the text that a page is about, without menus, sidebars, footers, forms and advertisements.

resiliparse finds it, by the names, roles and places of elements; code, lists and tables stay. It takes every list that
lies less than three levels below `body` for a menu, and pages of few levels lose all their lists to that: those that
are no more than half links are put deeper before.

Source: Bevendorff, Stein, Hagen, Potthast: Elastic ChatNoir, ECIR 2018, which resiliparse comes from.
"""

import re

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import DocumentNode, ElementNode, HTMLTree

from data_pipelines.sources.html import MAX_DEPTH, find_encoding, tidy_lines

_SHALLOW_LISTS = "body > ul, body > * > ul, body > * > * > ul"
_MAX_LINK_SHARE = 0.5
# Marks of anchors, bread crumbs, tables of contents and links to neighbours: Sphinx, DocBook, MediaWiki, Bootstrap.
_SKIPPED = (".headerlink", ".breadcrumb", ".breadcrumbs", "#toc", ".toc", ".navheader", ".navfooter", ".mw-editsection")
_BULLET = re.compile(r"^(?:  )?( *)• ?", re.MULTILINE)
_TAG = re.compile(r"<(/?)([a-z][^\s/>]*)")
# Their ends may be left out; they close each other.
_OPEN_ENDED = {
    "area",
    "base",
    "body",
    "br",
    "col",
    "colgroup",
    "dd",
    "dt",
    "embed",
    "head",
    "hr",
    "html",
    "img",
    "input",
}
_OPEN_ENDED |= {"li", "link", "meta", "optgroup", "option", "p", "param", "rp", "rt", "source", "tbody", "td", "tfoot"}
_OPEN_ENDED |= {"th", "thead", "tr", "track", "wbr"}


def extract_main_text(html: bytes, charset: str | None = None) -> str:
    """The main text of a page; empty when there is none.

    Args:
        html: the page.
        charset: what its server said of it; else what the page says itself counts, else it is UTF-8.

    Raises:
        ValueError: it is not HTML, or nested too deeply.
    """
    page = html.decode(find_encoding(html, charset), "replace").encode("utf-8", "replace").decode()
    if _is_deep(page):
        raise ValueError(f"nested more than {MAX_DEPTH:,} levels deep")
    tree = HTMLTree.parse(page)
    if tree.document is not None:
        _sink_lists(tree.document)
    text = extract_plain_text(
        tree, preserve_formatting=True, main_content=True, alt_texts=False, skip_elements=_SKIPPED
    )
    return tidy_lines(_BULLET.sub(r"\1- ", text.replace("\u00a0", " ")))


def _sink_lists(document: DocumentNode) -> None:
    """Put shallow lists that are no menus three levels deeper."""
    for item in list(document.query_selector_all(_SHALLOW_LISTS)):
        if _is_menu(item) or item.parent is None:
            continue
        outer = inner = document.create_element("div")
        item.parent.insert_before(outer, item)
        for _ in range(2):
            child = document.create_element("div")
            inner.append_child(child)
            inner = child
        inner.append_child(item)


def _is_menu(item: ElementNode) -> bool:
    in_links = sum(len((link.text or "").split()) for link in item.query_selector_all("a"))
    return in_links > _MAX_LINK_SHARE * len((item.text or "").split())


def _is_deep(page: str) -> bool:
    """Whether elements are nested so deeply that the time of resiliparse, which grows with the square, matters."""
    if page.count("<") <= MAX_DEPTH:
        return False
    page, depth, place = page.lower(), 0, 0
    while found := _TAG.search(page, place):
        place = found.end()
        tag = found[2]
        if found[1]:
            depth -= tag not in _OPEN_ENDED and depth > 0
        elif tag in ("script", "style"):
            place = page.find(f"</{tag}", place)
            if place < 0:
                return False
            place += 2
        elif tag not in _OPEN_ENDED:
            depth += 1
            if depth > MAX_DEPTH:
                return True
    return False
