"""Numbers about answers and judgements, with their uncertainty. Plain functions of lists."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Z_95 = 1.959963984540054


def wilson_interval(successes: float, count: int) -> tuple[float, float]:
    """95 % interval of a proportion.

    Args:
        successes: may be half a success for a tie.
        count: trials, at least 1.

    Source:
        Wilson 1927.
    """
    share, square = successes / count, Z_95**2 / count
    middle = (share + square / 2) / (1 + square)
    half = Z_95 / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def describe_mean(values: Sequence[float]) -> dict[str, Any]:
    """Mean with its 95 % interval by the normal approximation, and the count; one value has no interval."""
    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    if len(data) == 1:  # None is null in JSON, which has no NaN
        return {"mean": mean, "low": None, "high": None, "count": 1}
    half = Z_95 * float(data.std(ddof=1)) / math.sqrt(len(data))
    return {"mean": mean, "low": mean - half, "high": mean + half, "count": len(data)}


def describe_wins(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """How often the first scores above the second on the same prompt; a tie is half a win; 95 % interval."""
    wins = sum(a > b for a, b in zip(ours, theirs, strict=True))
    ties = sum(a == b for a, b in zip(ours, theirs, strict=True))
    low, high = wilson_interval(wins + ties / 2, len(ours))
    return {"win_rate": (wins + ties / 2) / len(ours), "low": low, "high": high, "ties": ties, "count": len(ours)}


def describe_difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Mean difference on the same prompts, with its 95 % interval."""
    return describe_mean([a - b for a, b in zip(ours, theirs, strict=True)])


def count_distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words over all n-grams (distinct-n, Li et al. 2016); 0 without any."""
    grams = [tuple(words[i : i + n]) for text in texts if (words := text.split()) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def correlate(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation; 0 where one does not vary."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
