"""HTML -> the text that a page is about, without menus, sidebars, footers, forms and advertisements.

resiliparse finds it, by the names, roles and density of links of elements; code, lists and tables stay.

Source: Bevendorff, Stein, Hagen, Potthast: Elastic ChatNoir, ECIR 2018, which resiliparse comes from.
"""

import re

from resiliparse.extract.html2text import extract_plain_text

from data_pipelines.sources.html import MAX_DEPTH, find_encoding

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
_TRAILING_SPACE = re.compile(r"[ \t]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")


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
    text = extract_plain_text(page, preserve_formatting=True, main_content=True, alt_texts=False)
    text = _TRAILING_SPACE.sub("", _BULLET.sub(r"\1- ", text.replace("\u00a0", " ")))
    return _BLANK_LINES.sub("\n\n", text).strip("\n")


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
