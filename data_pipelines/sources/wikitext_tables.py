"""Tables of wikitext -> rows of text: `a | b | c`. Infoboxes, navigation boxes and the like are left out."""

import re
from collections.abc import Callable

from mwparserfromhell.nodes import Tag
from mwparserfromhell.wikicode import Wikicode

_BOXES = re.compile(r"(?i)infobox|navbox|sidebar|metadata|\btoc\b|[a-z]mbox|vertical-navbox|noprint|biota|mw-hidden")
_LINES = re.compile(r"\s*\n[\x01*#;:\s]*")


def render_table(table: Tag, render: Callable[[Wikicode | None], str]) -> str:
    """A caption line and a line per row; empty cells at the end of a row and empty rows are left out.

    Args:
        table: the node of the parser.
        render: gives the text of what a cell holds.
    """
    if table.has("class") and _BOXES.search(str(table.get("class").value)):
        return ""
    rows: list[list[str]] = [[]]
    _collect(table.contents, rows, render)
    lines = []
    for row in rows:
        while row and not row[-1]:
            row.pop()
        if row:
            lines.append(" | ".join(row))
    return "\n\n" + "\n".join(lines) + "\n\n" if lines else ""


def _collect(code: Wikicode | None, rows: list[list[str]], render: Callable[[Wikicode | None], str]) -> None:
    for node in code.nodes if code is not None else ():
        if not isinstance(node, Tag):
            continue
        match str(node.tag).strip().lower():
            case "tr":
                rows.append([])
                _collect(node.contents, rows, render)
            case "td" | "th" | "caption":
                is_caption = node.tag == "caption" or (not rows[-1] and str(node).startswith("|+"))
                text = _LINES.sub(" ", render(node.contents)).strip(" \n\x04")
                text = text.removeprefix("+").lstrip() if is_caption else text
                if is_caption:
                    rows += [[text], []]
                else:
                    rows[-1].append(text)
            case "tbody" | "thead" | "tfoot":
                _collect(node.contents, rows, render)
