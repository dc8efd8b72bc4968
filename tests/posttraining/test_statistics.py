"""Numbers about answers, against known values and naive loops."""

import json
import math

import numpy as np
import pytest

from llmtrain.posttraining.statistics import (
    correlate,
    count_distinct,
    describe_difference,
    describe_mean,
    describe_wins,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        # As statsmodels.stats.proportion.proportion_confint(method="wilson") gives them.
        (8, 10, 0.490162, 0.943318),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (50, 100, 0.403832, 0.596168),
        (1, 1, 0.206549, 1.0),
    ],
)
def test_wilson_intervals_are_the_known_ones(successes: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(successes, count) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_a_wilson_interval_holds_all_shares_that_a_test_does_not_refuse(count: int) -> None:
    for successes in range(count + 1):
        for bound in wilson_interval(successes, count):
            if 0 < bound < 1:
                distance = abs(successes / count - bound) / math.sqrt(bound * (1 - bound) / count)
                assert distance == pytest.approx(1.959964, abs=1e-5)


def test_a_mean_has_the_normal_interval_of_its_samples() -> None:
    values = [1.0, 2.0, 4.0, 9.0]
    found = describe_mean(values)
    half = 1.959963984540054 * np.std(values, ddof=1) / 2
    assert found == {
        "mean": 4.0,
        "low": pytest.approx(4 - half),
        "high": pytest.approx(4 + half),
        "count": 4,
    }


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    rows = [describe_mean(generator.normal(3, 2, 50).tolist()) for _ in range(2000)]
    covered = sum(row["low"] <= 3 <= row["high"] for row in rows) / 2000
    # 0.943 with a known deviation; five standard deviations.
    assert covered == pytest.approx(0.943, abs=0.025)


def test_one_value_has_no_interval() -> None:
    found = describe_mean([2.0])
    assert found == {"mean": 2.0, "low": None, "high": None, "count": 1}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_wins_count_ties_half() -> None:
    found = describe_wins([1, 2, 3, 4], [0, 2, 5, 3])
    low, high = wilson_interval(2.5, 4)
    assert found == {"win_rate": 0.625, "low": low, "high": high, "ties": 1, "count": 4}
    assert describe_wins([1, 2], [1, 2])["win_rate"] == 0.5


def test_a_difference_is_taken_prompt_by_prompt() -> None:
    assert describe_difference([2, 4, 6], [1, 3, 5]) == {"mean": 1.0, "low": 1.0, "high": 1.0, "count": 3}
    with pytest.raises(ValueError, match="shorter"):
        describe_difference([1, 2], [1])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_distinct_n_is_that_of_a_naive_loop(n: int) -> None:
    texts = ["a b a b", "a b c", "", "d", "a b a b"]
    grams = []
    for text in texts:
        words = text.split()
        for i in range(len(words)):
            if i + n <= len(words):
                grams.append(" ".join(words[i : i + n]))
    assert count_distinct(texts, n) == len(set(grams)) / len(grams)


def test_texts_without_words_have_no_variety() -> None:
    assert count_distinct(["", "a"], 2) == 0.0
    assert count_distinct([], 1) == 0.0


def test_correlation_is_pearsons_and_zero_where_nothing_varies() -> None:
    assert correlate([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert correlate([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert correlate([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(0)
    assert correlate([1, 1, 1], [1, 2, 3]) == 0.0
    assert correlate([1], [1]) == 0.0
