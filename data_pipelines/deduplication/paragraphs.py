"""Paragraphs of a document, and the document without some of them."""

import re
from collections.abc import Iterator, Sequence

_BREAK = re.compile(r"\n(?:[ \t\r]*\n)+")


def split_paragraphs(text: str, min_characters: int) -> list[str]:
    """Paragraphs that count: what blank lines separate, without white space around it, and not too short."""
    return [paragraph for _, _, paragraph in _find_paragraphs(text, min_characters)]


def remove_paragraphs(text: str, min_characters: int, is_removed: Sequence[bool]) -> str:
    """A text without some of its paragraphs and without the blank lines after them.

    Args:
        text: as it was when its paragraphs were split.
        min_characters: of a paragraph that counts.
        is_removed: for each of `split_paragraphs`.
    """
    pieces, place = [], 0
    for (start, end, _), removed in zip(_find_paragraphs(text, min_characters), is_removed, strict=True):
        if removed:
            pieces.append(text[place:start])
            place = end
    pieces.append(text[place:])
    left = "".join(pieces).rstrip()
    return left + "\n" if left and text.endswith("\n") else left


def _find_paragraphs(text: str, min_characters: int) -> Iterator[tuple[int, int, str]]:
    """Start of each paragraph with its indentation, end of the blank lines after it, and the paragraph itself."""
    start = 0
    for end, following in [*((found.start(), found.end()) for found in _BREAK.finditer(text)), (len(text), len(text))]:
        paragraph = text[start:end].strip()
        if len(paragraph) >= min_characters:
            yield start, following, paragraph
        start = following
