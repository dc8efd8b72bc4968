"""How much of a text repeats itself: lines, paragraphs, and n-grams of words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAX_NGRAM_WORDS = 10

Numbers = npt.NDArray[np.int64]


class Repeats(NamedTuple):
    """Parts of a text that stood before in the same text, as shares of all parts."""

    fraction: float
    """Of the number of parts."""
    character_fraction: float
    """Of their characters."""


class RepeatedNgrams(NamedTuple):
    """N-grams of one length that occur more than once. Characters are counted without white space."""

    top_characters: int
    """Occurrences of the most frequent n-gram times its characters; among equally frequent ones of the longest."""
    duplicate_characters: int
    """Characters in second and later occurrences; where they overlap, each character is counted once."""


def count_repeats(parts: Sequence[str]) -> Repeats:
    """Second and later occurrences among lines or paragraphs."""
    distinct = set(parts)
    if len(distinct) == len(parts):
        return Repeats(0.0, 0.0)
    characters = sum(map(len, parts))
    repeated = characters - sum(map(len, distinct))
    return Repeats(1 - len(distinct) / len(parts), repeated / characters if characters else 0.0)


def find_repeated_ngrams(words: Numbers, lengths: Numbers, longest: int = MAX_NGRAM_WORDS) -> list[RepeatedNgrams]:
    """Repeated n-grams for n = 2, 3, ..., longest; the list ends where nothing is repeated any more.

    An n-gram can only be repeated where both (n-1)-grams in it are, so each length looks only at what the one before
    has left: exact, and after the first lengths there is little to do.

    Args:
        words: of a text, equal words as equal numbers from 0 on, shape [words].
        lengths: characters of each word, shape [words].
        longest: largest n.
    """
    ends = np.concatenate(([0], np.cumsum(lengths)))
    # labels[i] >= 0: the n-gram that begins at word i is repeated, and this is its number.
    labels = np.where(np.bincount(words, minlength=1)[words] > 1, words, -1)
    found: list[RepeatedNgrams] = []
    for n in range(2, longest + 1):
        starts = np.flatnonzero((labels[:-1] >= 0) & (labels[1:] >= 0))
        keys = labels[starts] * (int(labels.max(initial=0)) + 1) + labels[starts + 1]
        order = np.argsort(keys, kind="stable")
        starts, keys = starts[order], keys[order]
        is_first = np.diff(keys, prepend=-1) != 0
        groups = np.cumsum(is_first) - 1
        counts = np.bincount(groups)
        is_repeated = counts[groups] > 1 if counts.size else np.zeros(0, bool)
        if not is_repeated.any():
            break
        labels = np.full(len(words), -1)
        labels[starts[is_repeated]] = groups[is_repeated]
        firsts = starts[is_first & is_repeated]
        counts = counts[counts > 1]
        is_top = counts == counts.max()
        top = firsts[is_top]
        top_characters = int(counts.max() * (ends[top + n] - ends[top]).max())
        found.append(RepeatedNgrams(top_characters, _cover(starts[is_repeated & ~is_first], n, lengths)))
    return found


def _cover(starts: Numbers, n: int, lengths: Numbers) -> int:
    """Characters of all words that lie in an n-gram that begins at one of the different `starts`."""
    borders = np.zeros(len(lengths) + 1, np.int64)
    borders[starts] += 1
    borders[starts + n] -= 1
    return int(lengths[np.cumsum(borders[:-1]) > 0].sum())
