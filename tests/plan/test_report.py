"""How a plan's numbers are read."""

import math

import pytest

from llmtrain.plan.report import describe_count, describe_finite, describe_seconds


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (999_499, "999,499"),
        (999_999, "999,999"),
        (1_260_000, "1.26M"),
        (999_400_000, "999M"),
        (999_900_000, "1B"),
        (999_999_999_999, "1T"),
        (174_604_259_328, "175B"),
    ],
)
def test_counts_have_three_digits_and_the_nearest_unit(number: float, text: str) -> None:
    assert describe_count(number) == text


def test_what_is_no_number_is_not_known() -> None:
    assert describe_seconds(math.nan) == "not known"
    assert describe_seconds(math.inf) == "never"
    assert describe_finite(math.inf, " MWh", 1) == describe_finite(math.nan) == "not known"
    assert describe_finite(1234.56, " MWh", 1) == "1,234.6 MWh"
