"""Wikitext -> text.

mwparserfromhell parses; the walk below keeps prose, headings (`## Heading`), lists (`- item`, `1. item`), tables
(`a | b`), formulas (`$...$`), code, and what templates show in the middle of a sentence. References, files,
categories, navigation and all other templates are left out; the spaces, commas and brackets around them are mended.
"""

import re

import mwparserfromhell
from mwparserfromhell.nodes import Argument, ExternalLink, Heading, HTMLEntity, Tag, Template, Text, Wikilink
from mwparserfromhell.parser import ParserError
from mwparserfromhell.wikicode import Wikicode

from data_pipelines.sources.wikitext_layout import GAP, LIST_MARK, STASH_MARK, lay_out
from data_pipelines.sources.wikitext_numbers import write_subscript, write_superscript
from data_pipelines.sources.wikitext_tables import render_table
from data_pipelines.sources.wikitext_templates import is_known, render_template

_DROPPED_TAGS = {"ref", "references", "gallery", "timeline", "imagemap", "score", "graph", "templatedata", "inputbox",
                 "categorytree", "hiero", "section", "noinclude", "includeonly", "style", "templatestyles", "indicator",
                 "mapframe", "maplink", "ce"}  # fmt: skip
_BLOCK_TAGS = {"p", "div", "blockquote", "center", "poem", "ul", "ol", "dl", "hr"}
_PAIRS = (
    (re.compile(r"\{\{"), "}}"),
    (re.compile(r"\{\|"), "|}"),
    (re.compile(r"\["), "]"),
    (re.compile(r"(?i)<(?!(?:w?br|hr|li|d[dt]|t[dhr])\b)[a-z]+(?:\s[^<>]*)?(?<!/)>"), "</"),
)
# The parser tries each one to the end of the page: 5,000 take ten seconds, twice as many four times as long.
_MAX_UNCLOSED = 500
HIDDEN_PREFIXES = ("file:", "image:", "category:", "media:")
_LANGUAGE_LINK = re.compile(r"^(?!doi:)[a-z]{2,3}(-[a-z]+)*:")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f]")
_SWITCHES = re.compile(r"__[A-Z]{3,30}__")
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none")


def render_wikitext(wikitext: str, title: str = "", hidden: tuple[str, ...] = HIDDEN_PREFIXES) -> str:
    """The text of an article.

    Args:
        wikitext: as in a dump.
        title: of the page, for `{{PAGENAME}}`.
        hidden: beginnings, in lower case, of links that show nothing: names of the namespaces of files and categories.

    Raises:
        ValueError: it cannot be parsed in reasonable time, or not at all.
    """
    for opening, closing in _PAIRS:
        unclosed = len(opening.findall(wikitext)) - wikitext.count(closing)
        if unclosed > _MAX_UNCLOSED:
            raise ValueError(f"{closing} is missing {unclosed:,} times")
    wikitext = _SWITCHES.sub("", _CONTROLS.sub("", wikitext))
    renderer = _Renderer(title, hidden)
    try:
        text = renderer.render(mwparserfromhell.parse(wikitext, skip_style_tags=True))
    except (ParserError, RecursionError) as error:
        raise ValueError(f"cannot be parsed: {error}") from error
    return lay_out(text, renderer.stash)


class _Renderer:
    """The walk over one page; `stash` holds what the layout must not touch."""

    def __init__(self, title: str, hidden: tuple[str, ...]) -> None:
        self.title = title
        self.hidden = hidden
        self.stash: list[str] = []

    def render(self, code: Wikicode | None) -> str:
        return "" if code is None else "".join(map(self._render_node, code.nodes))

    def _render_node(self, node: object) -> str:
        match node:
            case Text():
                return str(node.value)
            case Wikilink():
                return self._render_link(node)
            case Template():
                return self._render_template(node)
            case Tag():
                return self._render_tag(node)
            case Heading():
                return f"\n\n{'#' * node.level} {self.render(node.title).strip()}\n\n"
            case ExternalLink():
                return self.render(node.title) if node.brackets else str(node.url)
            case HTMLEntity():
                return str(node.normalize())
            case Argument():
                return self.render(node.default)
            case _:
                return ""

    def _render_link(self, link: Wikilink) -> str:
        title = self.render(link.title).strip()
        if title.lower().startswith(self.hidden) or _LANGUAGE_LINK.match(title):
            return ""
        return self.render(link.text) if link.text is not None else title.lstrip(":").removeprefix("#")

    def _render_template(self, template: Template) -> str:
        name = " ".join(str(template.name).replace("_", " ").lower().split()).removeprefix("template:")
        if not is_known(name):
            return GAP
        if ":" in name:  # a parser function, whose first argument keeps its case
            name = name.partition(":")[0] + ":" + self.render(template.name).strip().partition(":")[2].strip()
        places: dict[int, str] = {}
        named: dict[str, str] = {}
        count = 0
        for parameter in template.params:
            key = str(parameter.name).strip().lower()
            if not parameter.showkey:
                count += 1
                key = str(count)
            value = self.render(parameter.value).strip(" \n\t" + GAP)
            if re.fullmatch(r"[1-9][0-9]?", key):
                places[int(key)] = value
            else:
                named[key] = value
        values = [places.get(place, "") for place in range(1, max(places, default=0) + 1)]
        return render_template(name, values, named, self.title) or GAP

    def _render_tag(self, tag: Tag) -> str:
        name = str(tag.tag).strip().lower()
        if name in _DROPPED_TAGS:
            return GAP
        if tag.wiki_markup in ("*", "#", ";", ":"):
            return LIST_MARK + str(tag.wiki_markup)
        if tag.has("style") and _HIDDEN_STYLE.search(str(tag.get("style").value)):
            return GAP
        match name:
            case "br":
                return "\n"
            case "table":
                return render_table(tag, self.render)
            case "math" | "chem":
                source = " ".join(str(tag.contents).split())
                return self._keep(f"${source}$") if source else GAP
            case "nowiki":
                return self._keep(_read_entities(tag))
            case "pre" | "syntaxhighlight" | "source":
                return self._render_code(tag)
            case "sup":
                return write_superscript(self.render(tag.contents))
            case "sub":
                return write_subscript(self.render(tag.contents))
            case "li":
                return f"\n{LIST_MARK}*{self.render(tag.contents)}"
            case "h1" | "h2" | "h3" | "h4" | "h5" | "h6":
                return f"\n\n{'#' * int(name[1])} {self.render(tag.contents).strip()}\n\n"
        text = self.render(tag.contents)
        return f"\n{text}\n" if name in _BLOCK_TAGS else text

    def _render_code(self, tag: Tag) -> str:
        code = _read_entities(tag) if str(tag.tag).lower() == "pre" else str(tag.contents)
        if "\n" not in code.strip():
            return self._keep(f"`{code.strip()}`") if code.strip() else GAP
        language = str(tag.get("lang").value).strip(" \"'") if tag.has("lang") else ""
        fenced = self._keep("```" + language + "\n" + code.strip("\n") + "\n```")
        return f"\n\n{fenced}\n\n"

    def _keep(self, text: str) -> str:
        self.stash.append(text)
        return f"{STASH_MARK}{len(self.stash) - 1}{STASH_MARK}"


def _read_entities(tag: Tag) -> str:
    nodes = tag.contents.nodes if tag.contents is not None else []
    return "".join(str(node.normalize()) if isinstance(node, HTMLEntity) else str(node) for node in nodes)
