# ruff: noqa: RUF001
"""What is left out of real and of random wikitext leaves no holes behind."""

import bz2
import re
import time
from pathlib import Path

import mwxml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.sources.wikitext import render_wikitext

# Brackets that begin or end with punctuation, free-standing or doubled stops and commas, double spaces, and words that
# cannot end a clause.
GAP = re.compile(
    r"\(\s*[,;:.)]|[,;]\s*\)|\s[,;.](?=\s)|,\s*[,;.]|[^\s|]  +(?=\S)"
    r"|\b(?:the|an|at|between) ?[.,;)]|\b(?:of|from|about|and|than|by) ?[.;)]"
)
REFERENCES = re.compile(r"<ref[^>]*/>|<ref.*?</ref>|['\[\]]")
# Measured 17 on the 106 articles, of which two miss a word; the others are marks that the article talks about. The
# parser's own strip_code leaves 3,213.
MAX_GAPS = 20
PIECES = [
    "{{",
    "}}",
    "[[",
    "]]",
    "{|",
    "|}",
    "\n",
    "|",
    "=",
    "==",
    "'",
    "<ref>",
    "</ref>",
    "<math>",
    "*",
    "#",
    ";",
    ":",
]
NAMES = [
    "convert",
    "10",
    "km",
    "a",
    "²",
    "−1/0",
    "val",
    "coord",
    "age",
    "<nowiki>",
    "&nbsp;",
    "\x02",
    "(",
    ",",
    ".",
    " ",
]


def find_gaps(text: str, wikitext: str) -> list[str]:
    """Gaps that do not stand in the wikitext itself."""
    plain = REFERENCES.sub("", wikitext.replace("&nbsp;", "\u00a0"))
    places = (text[max(0, match.start() - 5) : match.end()] for match in GAP.finditer(text))
    return [place for place in places if place not in plain]


def test_real_articles_have_next_to_no_gaps(dump: Path) -> None:
    gaps: list[str] = []
    with bz2.open(dump) as file:
        for page in mwxml.Dump.from_file(file).pages:
            wikitext = next(iter(page)).text
            if page.redirect is None and page.namespace == 0:
                gaps += find_gaps(render_wikitext(wikitext, page.title), wikitext)
    assert len(gaps) <= MAX_GAPS, gaps
    assert find_gaps("a height of .", "a height of {{x}}.") == ["ight of ."]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES + NAMES), max_size=60).map("".join))
def test_any_wikitext_is_read_without_a_crash(wikitext: str) -> None:
    started = time.process_time()
    assert not re.search(r"[\x01\x02\x04]", render_wikitext(wikitext, "T"))
    assert time.process_time() - started < 5
