from typing import Any

import pytest

from data_pipelines.cleaning.c4 import C4Quality
from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import C4QualityStep

GOOD = "This line has five words.\nHere are five words too!\nAre there not five words?\n"


def clean(text: str, **values: Any) -> str | None:
    """The text that is kept, or the reason in brackets."""
    subject = Subject(text)
    reason = C4Quality(C4QualityStep(name="c4_quality", **values))(subject)
    return f"({reason})" if reason else subject.text


@pytest.mark.parametrize(
    "line",
    [
        "no punctuation at the end",
        "this goes on and on...",
        "Only four words here.",
        f"One word is endless: {'x' * 1001}.",
        "You must enable JavaScript to see this.",
        "By this you accept our Cookie Policy today.",
        "This site uses cookies for its own ends.",
    ],
)
def test_lines_that_are_no_sentences_are_taken_out(line: str) -> None:
    assert clean(GOOD + line + "\n") == GOOD


@pytest.mark.parametrize(
    "line",
    ['She said "these are five words."', f"One word is long: {'x' * 999}.", "Exactly these are five words."],
)
def test_lines_at_the_bounds_stay(line: str) -> None:
    assert clean(GOOD + line + "\n") == GOOD + line + "\n"


def test_text_without_fault_is_not_changed() -> None:
    subject = Subject(GOOD + "\n" + GOOD)
    before = subject.text
    assert C4Quality(C4QualityStep(name="c4_quality"))(subject) is None
    assert subject.text is before


def test_paragraphs_stay_apart_where_lines_go() -> None:
    assert clean(f"{GOOD}\nHeading\n\n{GOOD}") == f"{GOOD}\n{GOOD}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD + "Lorem Ipsum dolor sit amet.", "lorem_ipsum"),
        (GOOD + "x = {", "curly_bracket"),
        (GOOD[: GOOD.index("Are")], "too_few_sentences"),
        ("\n", "too_few_sentences"),
    ],
)
def test_pages_are_dropped_whole(text: str, reason: str) -> None:
    assert clean(text) == f"(c4_quality: {reason})"


def test_three_sentences_on_one_line_are_enough() -> None:
    assert clean("One is here. Two is here. Three is here.\n") == "One is here. Two is here. Three is here.\n"
    assert clean("Version 1.2 of it is a number.\n") == "(c4_quality: too_few_sentences)"
    assert clean("\u4e00\u3002\u4e8c\u3002\u4e09\u3002\n", min_line_words=0) == "\u4e00\u3002\u4e8c\u3002\u4e09\u3002\n"


def test_marks_of_citations_go_with_the_space_before_them() -> None:
    cited = GOOD.replace("words", "words [3][citation needed]", 1)
    assert clean(cited) == GOOD
    assert clean(cited, remove_citations=False) == cited


def test_every_rule_can_be_switched_off() -> None:
    off: dict[str, Any] = dict.fromkeys(
        (
            "require_terminal_punctuation",
            "remove_javascript_lines",
            "remove_policy_lines",
            "remove_citations",
            "drop_lorem_ipsum",
            "drop_curly_brackets",
        ),
        False,
    )
    text = "Lorem ipsum { and [1]\nJavaScript\nOur privacy policy\n"
    assert clean(text, **off, min_line_words=0) == text


def test_cleaning_twice_changes_nothing_more() -> None:
    once = clean("Menu\n\n\n" + GOOD + "\nHome | About\n\n\nThe last [2] line has some words.\n")
    assert once is not None
    assert clean(once) == once
