"""Wikitext -> text.

mwparserfromhell parses; the walk below keeps prose, headings, list items and the values of templates that carry text
in the middle of a sentence. Tables, references, files, categories and all other templates are left out.
"""

import re
from collections.abc import Callable

import mwparserfromhell
from mwparserfromhell.nodes import Comment, ExternalLink, Heading, HTMLEntity, Tag, Template, Text, Wikilink
from mwparserfromhell.parser import ParserError
from mwparserfromhell.wikicode import Wikicode

_DROPPED_TAGS = {
    "ref",
    "references",
    "table",
    "gallery",
    "math",
    "timeline",
    "imagemap",
    "score",
    "code",
    "syntaxhighlight",
}
_PAIRS = (
    (re.compile(r"\{\{"), "}}"),
    (re.compile(r"\{\|"), "|}"),
    (re.compile(r"\["), "]"),
    (re.compile(r"(?i)<(?!(?:w?br|hr|li|d[dt]|t[dhr])\b)[a-z]+(?:\s[^<>]*)?(?<!/)>"), "</"),
)
# The parser tries each one to the end of the page: 5,000 take ten seconds, twice as many four times as long.
_MAX_UNCLOSED = 500
_MEDIA_PREFIXES = ("file:", "image:", "category:", "media:")
_LANGUAGE_LINK = re.compile(r"^[a-z]{2,3}(-[a-z]+)*:")
_BLANK_LINES = re.compile(r"\n{3,}")
_EMPTY_BRACKETS = re.compile(r"\s*\(\s*[,;]?\s*\)")
_DANGLING_SECTIONS = re.compile(
    r"\n+(See also|References|External links|Notes|Further reading|Bibliography)\n+(?=\n|\Z)"
)


def render_wikitext(wikitext: str) -> str:
    """The text of an article.

    Args:
        wikitext: as in a dump.

    Raises:
        ValueError: it cannot be parsed in reasonable time, or not at all.
    """
    for opening, closing in _PAIRS:
        unclosed = len(opening.findall(wikitext)) - wikitext.count(closing)
        if unclosed > _MAX_UNCLOSED:
            raise ValueError(f"{closing} is missing {unclosed:,} times")
    try:
        text = _render(mwparserfromhell.parse(wikitext, skip_style_tags=True))
    except (ParserError, RecursionError) as error:
        raise ValueError(f"cannot be parsed: {error}") from error
    text = text.replace("'''", "").replace("''", "")
    text = "\n".join(line.strip().lstrip("*#:;").strip() for line in _EMPTY_BRACKETS.sub("", text).splitlines())
    text = _BLANK_LINES.sub("\n\n", text).strip()
    return _DANGLING_SECTIONS.sub("\n", text + "\n").strip()


def _render(code: Wikicode | None) -> str:
    return "" if code is None else "".join(map(_render_node, code.nodes))


def _render_node(node: object) -> str:
    match node:
        case Text():
            return str(node.value)
        case Heading():
            return f"\n\n{_render(node.title).strip()}\n\n"
        case Wikilink():
            return _render_link(node)
        case ExternalLink():
            return _render(node.title)
        case HTMLEntity():
            return str(node.normalize())
        case Template():
            return _render_template(node)
        case Tag():
            name = str(node.tag).strip().lower()
            return "\n" if name == "br" else "" if name in _DROPPED_TAGS else _render(node.contents)
        case Comment():
            return ""
        case _:
            return ""


def _render_link(link: Wikilink) -> str:
    title = _render(link.title).strip()
    if title.lower().startswith(_MEDIA_PREFIXES) or _LANGUAGE_LINK.match(title):
        return ""
    return _render(link.text) if link.text is not None else title.lstrip(":")


def _render_template(template: Template) -> str:
    name = str(template.name).strip().lower().replace("_", " ")
    render = _TEMPLATES.get(name)
    if render is None and name.startswith("lang-"):
        render = _last
    if render is None:
        return ""
    values = [_render(parameter.value).strip() for parameter in template.params if not parameter.showkey]
    return render(values) if values else ""


def _last(values: list[str]) -> str:
    return values[-1]


def _second(values: list[str]) -> str:
    return values[1] if len(values) > 1 else ""


def _first(values: list[str]) -> str:
    return values[0]


def _convert(values: list[str]) -> str:
    # {{convert|10|km|mi}} or a range {{convert|10|to|20|km}}
    if len(values) >= 4 and values[1] in ("to", "-", "and", "or", "x", "by"):
        return f"{values[0]} {values[1]} {values[2]} {values[3]}"
    return " ".join(values[:2])


def _date(values: list[str]) -> str:
    return "-".join(value.zfill(2) for value in values[:3] if value.isdigit())


_TEMPLATES: dict[str, Callable[[list[str]], str]] = {
    "convert": _convert,
    "cvt": _convert,
    "lang": _second,
    "transl": _last,
    "formatnum": _first,
    "nowrap": _first,
    "nobr": _first,
    "quote": _first,
    "blockquote": _first,
    "cquote": _first,
    "smallcaps": _first,
    "abbr": _first,
    "ipa": _first,
    "unicode": _first,
    "val": _first,
    "birth date": _date,
    "birth date and age": _date,
    "death date": _date,
    "start date": _date,
}
