"""Equal hashes over all runs, range by range of the hashes: each column is read once, memory is that of one range.

Each run's column is sorted, so its part of a range is a slice; slices are joined in the order of documents and sorted
by hash with a stable sort, which merges them. So equal hashes stand together, their first document in front.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipelines.deduplication.columns import Column, Run

Numbers = NDArray[np.int64]

Select = Callable[[int, Numbers], NDArray[np.bool_]]
"""From the place of a run and entries of it to which of them take part."""

RANGE_ENTRIES = 1 << 21
"""Entries in a range, about; each costs some 60 bytes while it is looked at."""


@dataclass(frozen=True)
class Range:
    """Part of one column of all runs."""

    column: Column
    low: int
    high: int | None

    @property
    def name(self) -> str:
        """Of the file of its outcome."""
        return f"{self.column[0]}-{self.column[1]:03d}-{self.low:016x}"


def split_ranges(column: Column, entries: int, range_entries: int = RANGE_ENTRIES) -> list[Range]:
    """Equal ranges that cover all hashes of a column of so many entries; none where there are no entries."""
    count = -(-entries // range_entries)
    bounds: list[int | None] = [number * 2**64 // count for number in range(count)] if count else []
    return [Range(column, low or 0, high) for low, high in itertools.pairwise([*bounds, None])]


def find_repeats(
    part: Range, runs: Sequence[Run], bases: Sequence[int], select: Select | None = None
) -> tuple[Numbers, Numbers]:
    """Entries of a range that have the hash of an earlier one.

    Args:
        part: the range.
        runs: all, in order.
        bases: number of the first entry (document or paragraph) of each run; what follows them is not looked at.
        select: says which entries of a run take part; all if it is not given.

    Returns:
        The first entry with a hash, and a later one with the same, by rising number of the later one.
    """
    slices = [run.read_slice(part.column, part.low, part.high) for run in runs]
    if select is not None:
        for place, (keys, order) in enumerate(slices):
            selected = select(place, order)
            slices[place] = keys[selected], order[selected]
    keys = np.concatenate([key for key, _ in slices])
    numbers = np.concatenate([order + base for (_, order), base in zip(slices, bases, strict=False)])
    del slices
    leading = keys if keys.ndim == 1 else keys[:, 0]
    order = np.argsort(leading, kind="stable")
    keys, numbers = keys[order], numbers[order]
    if keys.ndim == 2:
        keys, numbers = _sort_by_both(keys, numbers)
    equal = keys[1:] == keys[:-1]
    is_repeat = np.zeros(len(numbers), bool)
    is_repeat[1:] = equal if keys.ndim == 1 else equal.all(axis=1)
    heads = np.maximum.accumulate(np.where(is_repeat, 0, np.arange(len(numbers))))
    first, later = numbers[heads[is_repeat]], numbers[is_repeat]
    by_later = np.argsort(later, kind="stable")
    return first[by_later], later[by_later]


def _sort_by_both(keys: NDArray[np.uint64], numbers: Numbers) -> tuple[NDArray[np.uint64], Numbers]:
    """Sort by the second half what agrees in the first; hardly any id does without being equal."""
    order = np.lexsort((numbers, keys[:, 1], keys[:, 0]))
    return keys[order], numbers[order]
