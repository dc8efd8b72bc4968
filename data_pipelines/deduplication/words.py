"""Texts -> one 64-bit hash for each word, many documents at once, without a Python object for a word.

A word is a run of letters, marks, digits and code points that Unicode has not assigned yet, in lower case; everything
else separates. In scripts that write no spaces between words (Han, kana, Thai, Lao, Khmer, Burmese, Tibetan) each
character is a word, so that an edit changes some n-grams, not all.

The hash of a word is its polynomial in an odd M modulo 2^64, read off the prefix sums of the text, and mixed. It does
not depend on the process, the machine or the version of Python, but for characters that a later Unicode assigns.
"""

import sys
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15
_ASSIGNED = 0x32400
"""Above it Unicode 15 has only tags, variation selectors and code points for private use."""
_LETTER, _SEPARATOR, _SINGLE = 0, 1, 2
# Blocks of scripts without spaces, from Unicode's list of blocks.
_SINGLES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)


def mix(values: Hashes) -> Hashes:
    """Every bit of the outcome depends on every bit of the value (the finaliser of splitmix64, Steele et al. 2014)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def hash_words(texts: list[str]) -> tuple[Hashes, Numbers]:
    """Hashes of the words of some texts.

    Args:
        texts: in memory at once; each is read as about 40 bytes a character.

    Returns:
        The hashes, text after text, and how many there are of each text.
    """
    classes, values = _tables()
    points = np.frombuffer("\n".join([*texts, ""]).encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = classes[points]
    is_part = kinds != _SEPARATOR
    # A word starts where the one before is no part of it; characters that are words by themselves always start one.
    breaks = np.empty(len(points) + 1, bool)
    breaks[0], breaks[-1] = True, True
    single = kinds == _SINGLE
    np.not_equal(is_part[1:], is_part[:-1], out=breaks[1:-1])
    breaks[:-1] |= single
    breaks[1:] |= single
    edges = np.flatnonzero(breaks)
    is_word = is_part[edges[:-1]]
    starts, ends = edges[:-1][is_word], edges[1:][is_word]
    powers, inverses = _powers(len(points))
    sums = np.zeros(len(points) + 1, np.uint64)
    np.cumsum(values[points] * powers, out=sums[1:])
    hashes = mix((sums[ends] - sums[starts]) * inverses[starts] + (ends - starts).astype(np.uint64))
    text_ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
    return hashes, np.diff(np.searchsorted(starts, text_ends), prepend=0)


@cache
def _tables() -> tuple[NDArray[np.uint8], Hashes]:
    """By code point: its class, and the value of its lower case."""
    classes = np.full(sys.maxunicode + 1, _LETTER, np.uint8)
    lower = np.arange(sys.maxunicode + 1, dtype=np.uint64)
    for point in range(_ASSIGNED):
        character = chr(point)
        category = unicodedata.category(character)
        if category[0] not in "LNM" and category != "Cn":
            classes[point] = _SEPARATOR
        elif category[0] == "L" and len(folded := character.lower()) == 1:
            lower[point] = ord(folded)
    for first, last in _SINGLES:
        block = classes[first : last + 1]
        block[block == _LETTER] = _SINGLE
    return classes, mix(lower + np.uint64(_BASE))


_grown: list[tuple[Hashes, Hashes]] = []


def _powers(length: int) -> tuple[Hashes, Hashes]:
    """Powers of M and of its inverse modulo 2^64, kept for the longest text so far."""
    if not _grown or len(_grown[0][0]) < length:
        size = max(1 << 16, 1 << (length - 1).bit_length())
        rows = []
        for base in (_BASE, pow(_BASE, -1, 1 << 64)):
            row = np.full(size, base, np.uint64)
            row[0] = 1
            rows.append(np.cumprod(row, dtype=np.uint64))
        _grown[:] = [(rows[0], rows[1])]
    powers, inverses = _grown[0]
    return powers[:length], inverses[:length]
