"""HTML -> text: one line per block, preformatted text as it is.

lxml parses; the walk below turns blocks into lines. It keeps all text but scripts, forms, navigation and links to local
files. `main_text` finds what a page is about among menus and advertisements.
"""

import codecs
import re

import lxml.etree
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
_PREFORMATTED_TAGS = {"pre", "textarea", "listing"}
MAX_DEPTH = 2000  # libxml2 leaves out what lies below 2,048 levels
_HEAD_BYTES = 4096
_CHARSET = re.compile(rb"""(?i)<meta[^>]+charset\s*=\s*["']?\s*([\w.:-]+)|<\?xml[^>]+encoding\s*=\s*["']([\w.:-]+)""")
# Browsers read pages that say so as Windows-1252, and pages mean it.
_MEANS_WINDOWS = {"iso8859-1", "ascii"}
_WHITE_SPACE = re.compile(r"[ \t\r\n\f]+")
_TRAILING_SPACE = re.compile(r"[ \t]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")


def extract_text(html: bytes, charset: str | None = None) -> str:
    """The text of a page; empty when there is none.

    Args:
        html: the page.
        charset: what its server said of it; else what the page says itself counts, else it is UTF-8.

    Raises:
        ValueError: it is not HTML, or nested too deeply.
    """
    content = html.decode(find_encoding(html, charset), "replace").encode()
    try:
        # Without huge_tree the parser stops at 10 MB of text or 256 levels and keeps silent about it.
        tree = lxml.html.document_fromstring(content, lxml.html.HTMLParser(encoding="utf-8", huge_tree=True))
    except lxml.etree.LxmlError as error:
        raise ValueError(f"not HTML: {error}") from error
    parts: list[str] = []
    _walk(tree, parts)
    return tidy_lines("".join(parts))


def tidy_lines(text: str) -> str:
    """The text with plain spaces, none of them at ends of lines, and one blank line at most between others."""
    text = _TRAILING_SPACE.sub("", text.replace("\u00a0", " "))
    return _BLANK_LINES.sub("\n\n", text).strip("\n")


def find_encoding(html: bytes, charset: str | None) -> str:
    """The codec of a page: as its server said, else as the page says, else UTF-8."""
    said = _CHARSET.search(html[:_HEAD_BYTES])
    for name in (charset, said and (said[1] or said[2]).decode()):
        try:
            codec = codecs.lookup(name or "")
            "".encode(codec.name)  # refuses codecs that are not of text
        except (LookupError, ValueError):
            continue
        return "cp1252" if codec.name in _MEANS_WINDOWS else codec.name
    return "utf-8-sig"


def _walk(tree: lxml.html.HtmlElement, parts: list[str]) -> None:
    walker = lxml.etree.iterwalk(tree, events=("start", "end", "comment", "pi"))
    depth, preformatted_depths = 0, list[int]()
    for event, element in walker:
        tag = element.tag
        if event == "start":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
            if _is_dropped(element):
                walker.skip_subtree()
                continue
            _break_line(tag, parts)
            if tag == "br":
                parts.append("\n")
            if tag in _PREFORMATTED_TAGS:
                preformatted_depths.append(depth)
            _add(element.text, parts, bool(preformatted_depths))
            continue
        if event == "end":
            if preformatted_depths and preformatted_depths[-1] == depth:
                preformatted_depths.pop()
            depth -= 1
            if not _is_dropped(element):
                _break_line(tag, parts)
                if tag in ("td", "th"):
                    parts.append(" ")
        _add(element.tail, parts, bool(preformatted_depths))


def _is_dropped(element: lxml.html.HtmlElement) -> bool:
    return element.tag in _DROPPED_TAGS or (element.tag == "a" and element.get("href", "").startswith("file:"))


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
