"""What held-out pairs say about a reward model: right or wrong, how sure, and whether it only counts words."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from llmtrain.posttraining.pairs import EncodedPairs
from llmtrain.posttraining.statistics import correlate, wilson_interval

_BINS = 10


def describe_judgements(pairs: EncodedPairs, chosen: Sequence[float], rejected: Sequence[float]) -> dict[str, Any]:
    """Accuracy, calibration and the part of length.

    Args:
        pairs: held-out pairs.
        chosen: scores of the chosen answers.
        rejected: scores of the rejected answers.

    Returns:
        Plain values for the summary; accuracies with 95 % intervals, ties count half.
    """
    margins = [a - b for a, b in zip(chosen, rejected, strict=True)]
    lengths = [
        [len(ids) - prompt for ids, prompt in zip(side, pairs.prompt_tokens, strict=True)]
        for side in (pairs.chosen, pairs.rejected)
    ]
    longer = [a - b for a, b in zip(*lengths, strict=True)]
    groups = {
        "chosen_longer": [margin for margin, difference in zip(margins, longer, strict=True) if difference > 0],
        "same_length": [margin for margin, difference in zip(margins, longer, strict=True) if difference == 0],
        "chosen_shorter": [margin for margin, difference in zip(margins, longer, strict=True) if difference < 0],
    }
    sources = sorted(set(pairs.sources))
    by_source = {
        name: [margin for margin, source in zip(margins, pairs.sources, strict=True) if source == name]
        for name in sources
    }
    # The same pairs, judged by length alone: what a model has to beat.
    by_length = max(_share_right(longer), _share_right([-difference for difference in longer]))
    return {
        "accuracy": _describe_accuracy(margins),
        "accuracy_by_source": {name: _describe_accuracy(values) for name, values in by_source.items()},
        "accuracy_by_length": {name: _describe_accuracy(values) for name, values in groups.items() if values},
        "accuracy_of_length_alone": by_length,
        "loss": float(np.mean([_softplus(-margin) for margin in margins])),
        "margin": float(np.mean(margins)),
        "calibration": describe_calibration(margins),
        "reward_length_correlation": correlate([*chosen, *rejected], [*lengths[0], *lengths[1]]),
    }


def describe_calibration(margins: Sequence[float]) -> dict[str, Any]:
    """How often the model is right where it says so with some probability.

    The probability of a pair is that of the answer the model prefers, 0.5 to 1, in ten bins of equal width.

    Returns:
        `expected_error` (Guo et al. 2017, equation 3) and the bins that hold pairs.
    """
    sure = [1 / (1 + math.exp(-min(abs(margin), 500.0))) for margin in margins]
    right = [0.5 if margin == 0 else float(margin > 0) for margin in margins]
    places = [min(_BINS - 1, int((value - 0.5) * 2 * _BINS)) for value in sure]
    bins = []
    for i in range(_BINS):
        inside = [j for j, place in enumerate(places) if place == i]
        if inside:
            row = {"probability": float(np.mean([sure[j] for j in inside])), "pairs": len(inside)}
            bins.append(row | {"right": float(np.mean([right[j] for j in inside]))})
    error = sum(row["pairs"] * abs(row["right"] - row["probability"]) for row in bins) / len(margins)
    return {"expected_error": error, "bins": bins}


def _describe_accuracy(margins: Sequence[float]) -> dict[str, float]:
    low, high = wilson_interval(_share_right(margins) * len(margins), len(margins))
    return {"value": _share_right(margins), "low": low, "high": high, "pairs": len(margins)}


def _share_right(margins: Sequence[float]) -> float:
    return sum(1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins) / len(margins)


def _softplus(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
