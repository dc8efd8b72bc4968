"""What held-out pairs say about a reward model."""

import math

import pytest

from llmtrain.posttraining.pairs import EncodedPairs
from llmtrain.posttraining.reward_report import describe_calibration, describe_judgements
from llmtrain.posttraining.statistics import correlate, wilson_interval


def make_pairs(lengths: list[tuple[int, int]], sources: list[str] | None = None) -> EncodedPairs:
    """Prompts of two tokens, answers of the given lengths."""
    return EncodedPairs(
        chosen=[[0] * (2 + chosen) for chosen, _ in lengths],
        rejected=[[0] * (2 + rejected) for _, rejected in lengths],
        prompt_tokens=[2] * len(lengths),
        sources=sources or ["web"] * len(lengths),
    )


PAIRS = make_pairs([(5, 3), (5, 3), (4, 4), (2, 6), (3, 1)], ["web", "web", "web", "made", "made"])
CHOSEN, REJECTED = [2.0, 0.0, 1.0, 1.0, -1.0], [1.0, 1.0, 1.0, 0.0, -4.0]


def test_accuracy_counts_ties_half_and_has_a_wilson_interval() -> None:
    found = describe_judgements(PAIRS, CHOSEN, REJECTED)["accuracy"]
    low, high = wilson_interval(3.5, 5)
    assert found == {"value": 0.7, "low": low, "high": high, "pairs": 5}


def test_accuracy_is_told_by_source_and_by_which_answer_is_longer() -> None:
    report = describe_judgements(PAIRS, CHOSEN, REJECTED)
    shares = {name: (row["value"], row["pairs"]) for name, row in report["accuracy_by_source"].items()}
    assert shares == {"web": (0.5, 3), "made": (1.0, 2)}
    shares = {name: (row["value"], row["pairs"]) for name, row in report["accuracy_by_length"].items()}
    assert shares == {
        "chosen_longer": (pytest.approx(2 / 3), 3),
        "same_length": (0.5, 1),
        "chosen_shorter": (1.0, 1),
    }


def test_groups_without_pairs_are_not_named() -> None:
    report = describe_judgements(make_pairs([(2, 1)]), [1.0], [0.0])
    assert list(report["accuracy_by_length"]) == ["chosen_longer"]


def test_length_alone_is_judged_in_the_better_direction() -> None:
    assert describe_judgements(PAIRS, CHOSEN, REJECTED)["accuracy_of_length_alone"] == 3.5 / 5
    shorter = make_pairs([(1, 2), (1, 3), (5, 2)])
    assert describe_judgements(shorter, [0.0] * 3, [0.0] * 3)["accuracy_of_length_alone"] == pytest.approx(2 / 3)


def test_loss_and_margin_are_those_of_bradley_and_terry() -> None:
    report = describe_judgements(PAIRS, CHOSEN, REJECTED)
    margins = [1.0, -1.0, 0.0, 1.0, 3.0]
    assert report["margin"] == pytest.approx(sum(margins) / 5)
    assert report["loss"] == pytest.approx(sum(-math.log(1 / (1 + math.exp(-margin))) for margin in margins) / 5)


def test_a_model_that_is_very_wrong_has_a_finite_loss() -> None:
    report = describe_judgements(make_pairs([(2, 1)]), [-1e4], [1e4])
    assert report["loss"] == pytest.approx(2e4)
    assert report["calibration"]["expected_error"] == pytest.approx(1.0)


def test_the_correlation_is_of_rewards_with_the_tokens_of_answers_alone() -> None:
    report = describe_judgements(PAIRS, CHOSEN, REJECTED)
    lengths = [5, 5, 4, 2, 3, 3, 3, 4, 6, 1]
    assert report["reward_length_correlation"] == pytest.approx(correlate([*CHOSEN, *REJECTED], lengths))
    # A model that counts tokens, whatever the prompts.
    longer = EncodedPairs([[0] * 9, [0] * 4], [[0] * 8, [0] * 3], [7, 1], ["web", "web"])
    assert describe_judgements(longer, [2, 3], [1, 2])["reward_length_correlation"] == pytest.approx(1)


def margin_of(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_a_model_that_is_right_as_often_as_it_says_is_calibrated() -> None:
    # Says 0.8 five times, and is wrong once; says 0.625 eight times, and is wrong three times.
    margins = [margin_of(0.8)] * 4 + [-margin_of(0.8)] + [margin_of(0.625)] * 5 + [-margin_of(0.625)] * 3
    found = describe_calibration(margins)
    assert found["expected_error"] == pytest.approx(0, abs=1e-12)
    assert [row["pairs"] for row in found["bins"]] == [8, 5]


def test_calibration_bins_are_ten_of_equal_width_above_a_half() -> None:
    probabilities = [0.5 + 0.05 * i + 0.025 for i in range(10)]
    found = describe_calibration([margin_of(probability) for probability in probabilities])
    assert [row["pairs"] for row in found["bins"]] == [1] * 10
    for row, probability in zip(found["bins"], probabilities, strict=True):
        assert row["probability"] == pytest.approx(probability)
        assert row["right"] == 1.0
    assert found["expected_error"] == pytest.approx(sum(1 - probability for probability in probabilities) / 10)


def test_ties_lie_in_the_first_bin_and_certainty_in_the_last() -> None:
    found = describe_calibration([0.0, 1e6])
    assert found["bins"] == [
        {"probability": 0.5, "pairs": 1, "right": 0.5},
        {"probability": 1.0, "pairs": 1, "right": 1.0},
    ]
    assert found["expected_error"] == 0.0
