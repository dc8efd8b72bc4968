"""HTML -> text: one line per block, preformatted text as it is.

lxml parses; the walk below turns blocks into lines. It keeps all text but scripts, forms, navigation and links to local
files. Finding the main text of a page among advertisements is another task: trafilatura does that, at a twentieth of
the speed, and loses most of an API reference.
"""

import re

import lxml.html

_DROPPED_TAGS = {"script", "style", "noscript", "nav", "form", "iframe", "svg", "button", "template"}
_BLOCK_TAGS = {"address", "article", "aside", "blockquote", "caption", "center", "dd", "details", "div", "dl", "dt"}
_BLOCK_TAGS |= {
    "figcaption",
    "figure",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "li",
    "main",
    "ol",
}
_BLOCK_TAGS |= {"p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "title", "tr", "ul"}
_PARAGRAPH_TAGS = {"p", "pre", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "title"}
_WHITE_SPACE = re.compile(r"[ \t\r\n\f]+")
_TRAILING_SPACE = re.compile(r"[ \t]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")


def extract_text(html: bytes | str) -> str:
    """The text of a page; empty when there is none.

    Args:
        html: the page; bytes are decoded as the page says, else as UTF-8.

    Raises:
        ValueError: it is not HTML.
    """
    try:
        parser = lxml.html.HTMLParser(encoding=None if isinstance(html, str) else _find_encoding(html))
        tree = lxml.html.document_fromstring(html, parser)
    except (lxml.etree.LxmlError, ValueError, LookupError) as error:
        raise ValueError(f"not HTML: {error}") from error
    parts: list[str] = []
    _walk(tree, parts, is_preformatted=False)
    text = _TRAILING_SPACE.sub("", "".join(parts).replace("\u00a0", " "))
    return _BLANK_LINES.sub("\n\n", text).strip("\n")


def _find_encoding(html: bytes) -> str | None:
    if re.search(rb"charset", html[:2048], re.IGNORECASE):
        return None  # the parser reads it itself
    return "utf-8"


def _walk(element: lxml.html.HtmlElement, parts: list[str], is_preformatted: bool) -> None:
    tag = element.tag
    is_dropped = not isinstance(tag, str) or tag in _DROPPED_TAGS
    is_dropped |= tag == "a" and element.get("href", "").startswith("file:")
    if not is_dropped:
        is_inner_preformatted = is_preformatted or tag in ("pre", "textarea", "listing")
        _break_line(tag, parts)
        if tag == "br":
            parts.append("\n")
        _add(element.text, parts, is_inner_preformatted)
        for child in element:
            _walk(child, parts, is_inner_preformatted)
        _break_line(tag, parts)
        if tag in ("td", "th"):
            parts.append(" ")
    _add(element.tail, parts, is_preformatted)


def _break_line(tag: str, parts: list[str]) -> None:
    if tag in _BLOCK_TAGS and parts:
        if not parts[-1].endswith("\n"):
            parts.append("\n")
        if tag in _PARAGRAPH_TAGS:
            parts.append("\n")


def _add(text: str | None, parts: list[str], is_preformatted: bool) -> None:
    if not text:
        return
    if is_preformatted:
        parts.append(text.replace("\r\n", "\n"))
        return
    text = _WHITE_SPACE.sub(" ", text)
    if not parts or parts[-1].endswith(("\n", " ")):
        text = text.lstrip(" ")
    if text:
        parts.append(text)
