"""Rendered wikitext with marks -> lines of text: lists, blank lines, empty sections, and gaps where something went."""

import re

# Control characters, which no XML file can hold, mark what the walk over the page knows and the layout needs.
LIST_MARK = "\x01"
"""Before each of `*#;:` at the beginning of a line."""
STASH_MARK = "\x02"
"""Around the number of a text that is put in at the end, as it is."""
GAP = "\x04"
"""Something without text stood here."""

_LIST = re.compile(r"((?:\x01[*#;:])+)[ \x04]*")
_SPACES = re.compile(r"[ \t]{2,}")
_GAPS = re.compile(r"( ?)\x04(?: ?\x04)*( ?)")
_EMPTY_BRACKETS = re.compile(r" ?[(\[](?=[^()\[\]]{0,20}\x04)[\s\x04,;:]{1,20}[)\]]")
_AFTER_BRACKET = re.compile(r"([(\[])(?: ?\x04 ?[,;:]?)+ ?")
_BEFORE_BRACKET = re.compile(r"(?:[,;:]? ?\x04)+ ?([)\]])")
_TWO_COMMAS = re.compile(r"[,;] ?\x04 ?(?=[,;.])")
_DEFINITION = re.compile(r" ?\x01: *")
_BEFORE_STOP = re.compile(r" ?\x04 ?(?=[.,;:!?)\]](?:\s|\Z|\x04))")
_AT_START = re.compile(r"(?m)^((?:\x01[*#;:])* ?)\x04[ \x04]*[,;.:)]+(?=\s|\Z)")
_BLANK_LINES = re.compile(r"\n{3,}")
_STASHED = re.compile(r"\x02([0-9]+)\x02")
_QUOTES = re.compile(r"'{2,}")
_LEFT = re.compile(r"[\x01\x02\x04]")
_HEADING = re.compile(r"(#{1,6}) \S")


def lay_out(text: str, stash: list[str]) -> str:
    """Finish the text of a page.

    Args:
        text: with the marks above.
        stash: texts that are to be put in as they are.
    """
    text = _SPACES.sub(" ", _QUOTES.sub(lambda match: "'" if len(match[0]) == 4 else "", text))
    if GAP in text:
        text = _close_gaps(text)
    lines = _drop_empty_sections(_write_lists(text.split("\n")))
    text = _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()
    text = _STASHED.sub(lambda match: stash[int(match[1])], text)
    # Those inside of a stashed text: what it stands in was parsed twice.
    text = _STASHED.sub(lambda match: stash[int(match[1])], text)
    return _LEFT.sub("", text)


def _close_gaps(text: str) -> str:
    text = _GAPS.sub(lambda match: f" {GAP}" if match[1] else f"{GAP} " if match[2] else GAP, text)
    text = _EMPTY_BRACKETS.sub(GAP, text)
    text = _AT_START.sub(r"\1", text)
    text = _AFTER_BRACKET.sub(r"\1", text)
    text = _BEFORE_BRACKET.sub(r"\1", text)
    text = _TWO_COMMAS.sub("", text)
    text = _BEFORE_STOP.sub("", text)
    return _SPACES.sub(" ", text.replace(GAP, ""))


def _write_lists(lines: list[str]) -> list[str]:
    written: list[str] = []
    numbers: dict[int, int] = {}
    for line in lines:
        line = line.strip()
        match = _LIST.match(line)
        if match is None:
            if line:
                numbers = {}
            written.append(_DEFINITION.sub(": ", line))
            continue
        marks, rest = match[1].replace(LIST_MARK, ""), _DEFINITION.sub(": ", line[match.end() :]).strip()
        if not rest:
            continue
        depth = len(marks.rstrip(";:")) or len(marks)
        numbers = {level: number for level, number in numbers.items() if level <= depth}
        indent = "  " * min(depth - 1, 8)
        if marks[-1] == "*":
            numbers.pop(depth, None)
            written.append(f"{indent}- {rest}")
        elif marks[-1] == "#":
            numbers[depth] = numbers.get(depth, 0) + 1
            written.append(f"{indent}{numbers[depth]}. {rest}")
        else:
            written.append(rest if marks[0] in ";:" else f"{indent}  {rest}")
    return written


def _drop_empty_sections(lines: list[str]) -> list[str]:
    kept: list[str] = []
    level = 0  # of the heading below, with nothing in between; 0 at the end, 7 for text
    for line in reversed(lines):
        match = _HEADING.match(line)
        if match is None:
            if re.fullmatch(r"#{1,6}", line):
                continue
            level = 7 if line else level
        elif len(match[1]) >= level:
            continue
        else:
            level = len(match[1])
        kept.append(line)
    return kept[::-1]
