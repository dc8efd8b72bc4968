"""Articles of an encyclopedia: a title, and sections of paragraphs, out of the text of a document."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from data_pipelines.document import Document
from data_pipelines.instructions.sentences import drop_pronunciation

_HEADING = re.compile(r"^(#{1,6}) +(.+?)\s*$", re.MULTILINE)
_PUNCTUATION = ".,;:!?()[]\"'"
_PROSE = frozenset({"", "en"})


@dataclass(frozen=True)
class Section:
    """A part of an article up to the next heading of any level."""

    heading: str
    """That above it; "" at the beginning of the article."""
    parents: tuple[str, ...]
    """Headings above that, without the title."""
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Article:
    """A document that begins with a title."""

    title: str
    text: str
    sections: tuple[Section, ...]

    def lower_first(self, name: str) -> str:
        """A name as it stands within a sentence: in lower case at the beginning if the article writes it so."""
        first, *others = name.split()
        if not name[:1].isupper() or not name[1:2].islower() or any(word[0].isupper() for word in others):
            return name
        small, capital = self._spellings
        lowered = first[0].lower() + first[1:]
        count = sum(small[f"{lowered}{ending}"] for ending in ("", "s", "es"))
        return name[0].lower() + name[1:] if count > capital[first] else name

    @cached_property
    def _spellings(self) -> tuple[Counter[str], Counter[str]]:
        """Counts of words in lower case, and of capitalised ones within a sentence."""
        small, capital, before = Counter[str](), Counter[str](), "."
        for token in self.text.split():
            word = token.strip(_PUNCTUATION)
            if word[:1].islower():
                small[word] += 1
            elif word[:1].isupper() and (before[-1].islower() or before[-1] in ",;"):
                capital[word] += 1
            before = token
        return small, capital


def is_prose(document: Document) -> bool:
    """Whether a document is English text, or text whose language nobody told."""
    return document.language in _PROSE


def parse_article(document: Document) -> Article | None:
    """The article in a document; None if it has no title."""
    if not is_prose(document) or not document.text.startswith("# "):
        return None
    title = document.text[2:].partition("\n")[0].strip()
    return Article(title, document.text, tuple(_split(document.text)))


def _split(text: str) -> Iterator[Section]:
    headings = list(_HEADING.finditer(text))
    path: list[str] = []
    for match, following in zip(headings, [*headings[1:], None], strict=True):
        level = len(match[1])
        path = [*path[: level - 1], *[""] * (level - 1 - len(path)), match[2]]
        body = text[match.end() : following.start() if following else len(text)]
        paragraphs = tuple(drop_pronunciation(part.strip()) for part in re.split(r"\n\s*\n", body) if part.strip())
        heading = match[2] if level > 1 else ""
        yield Section(heading, tuple(name for name in path[1:-1] if name), paragraphs)
