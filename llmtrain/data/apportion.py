"""Whole numbers of samples for shares: at every count, each source is within 4 of its share.

A balanced tree of sources: at each node the left half gets its share of the node's samples, rounded to the nearest. One
sample more goes to exactly one source, so nothing ever shrinks and all counts add up.
"""

import numpy as np
from numpy.typing import NDArray


def apportion(first: int, steps: int, weights: tuple[int, ...]) -> NDArray[np.int64]:
    """Samples of each source among the first `first`, `first + 1`, ..., `first + steps` samples.

    Args:
        first: samples before.
        steps: at most 2^20.
        weights: not negative, not all zero; their sum is at most 2^42.

    Returns:
        Counts, [steps + 1, sources].
    """
    table = np.empty((steps + 1, len(weights)), np.int64)
    _split(first, np.arange(steps + 1), weights, table)
    return table


def _split(first: int, more: NDArray[np.int64], weights: tuple[int, ...], table: NDArray[np.int64]) -> None:
    """Share `first + more` samples of a node among its sources, into the columns of `table`."""
    if len(weights) == 1:
        table[:, 0] = first + more
        return
    middle, total = len(weights) // 2, sum(weights)
    if not total:
        table[:] = 0
        return
    # round(count * left / total) for counts beyond what 64 bits hold: the large part in Python's integers.
    left = sum(weights[:middle])
    quotient, rest = divmod(2 * first * left + total, 2 * total)
    left_more = (rest + 2 * left * more) // (2 * total)
    _split(quotient, left_more, weights[:middle], table[:, :middle])
    _split(first - quotient, more - left_more, weights[middle:], table[:, middle:])
