from typing import Any

import pytest

from data_pipelines.cleaning.fineweb import FinewebQuality
from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import FinewebQualityStep


def judge(text: str, **values: Any) -> str | None:
    return FinewebQuality(FinewebQualityStep(name="fineweb_quality", **values))(Subject(text))


def lines(count: int, end: str = ".", length: int = 40) -> list[str]:
    """Different lines of the same length and of eight words."""
    return [(f"{number:05d}" + " of" * 7).ljust(length - len(end), "x") + end for number in range(count)]


@pytest.mark.parametrize(
    ("kept", "dropped", "reason"),
    [
        (lines(13) + lines(87, ""), lines(12) + lines(88, ""), "few_punctuated_lines"),
        # Equal lengths: 9 of 100 lines stood before, then 10.
        (lines(91) + lines(9), lines(90) + lines(10), "duplicate_line_characters"),
        (lines(34) + lines(66, length=29), lines(33) + lines(67, length=29), "short_lines"),
        (lines(10), [*lines(10), *[""] * 21], "lines_per_word"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_rule_keeps_what_is_at_its_bound_and_drops_what_is_beyond(
    kept: list[str], dropped: list[str], reason: str
) -> None:
    assert judge("\n".join(kept)) is None
    assert judge("\n".join(dropped)) == f"fineweb_quality: {reason}"


def test_a_line_of_thirty_characters_is_not_short() -> None:
    assert judge("\n".join(lines(10, length=30))) is None
    assert judge("\n".join(lines(10, length=30)), short_line_characters=31) == "fineweb_quality: short_lines"


def test_an_empty_document_has_no_punctuated_line() -> None:
    assert judge("\n") == "fineweb_quality: few_punctuated_lines"
