"""Texts -> hashes of the bands of their MinHash signatures.

texts -> words -> shingles (n words in a row) -> minima over permutations -> bands. Two documents agree in one row with
the probability of their Jaccard similarity J: the share of shingles they have in common of all they have. In one of b
bands of r rows they agree with probability 1 - (1 - J^r)^b.

Source: Broder 1997 (resemblance, shingles, minima over permutations); Leskovec, Rajaraman, Ullman, Mining of Massive
Datasets, 3.4 (bands); Lee et al. 2022 (for corpora of text); Penedo et al. 2024 (14 bands of 8 rows over 5 words).
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from data_pipelines.deduplication.words import Hashes, Numbers, hash_words, mix
from llmtrain.config.deduplicate import NearDuplicates

# Raised when the signature of a text changes.
SIGNATURE_VERSION = 1

_BATCH_CHARACTERS = 1 << 17
"""Texts are taken together up to this size, so that what is made of them fits the cache."""
_BLOCK_SHINGLES = 1 << 15
_SHINGLE_BASE = np.uint64(0xD6E8FEB86659FD93)
_BAND_BASE = np.uint64(0xA0761D6478BD642F)
_FILLER = np.uint64(0)


def compute_bands(texts: Sequence[str], config: NearDuplicates) -> tuple[Hashes, NDArray[np.bool_]]:
    """Band hashes of texts. A text of fewer than n words is one shingle; one without a word has no signature.

    Args:
        texts: any number.
        config: n-grams and bands.

    Returns:
        Hashes of shape [bands, texts], and which texts have a signature.
    """
    bands = np.empty((config.bands, len(texts)), np.uint64)
    has_words = np.empty(len(texts), bool)
    start = 0
    while start < len(texts):
        end, characters = start, 0
        while end < len(texts) and (end == start or characters + len(texts[end]) <= _BATCH_CHARACTERS):
            characters += len(texts[end])
            end += 1
        shingles, counts = compute_shingles(list(texts[start:end]), config.ngram_words)
        minima = _compute_minima(shingles, counts, config.bands * config.rows_per_band)
        bands[:, start:end] = _hash_bands(minima, config)
        has_words[start:end] = counts > 0
        start = end
    return bands, has_words


def compute_shingles(texts: list[str], ngram_words: int) -> tuple[NDArray[np.uint32], Numbers]:
    """Hashes of n words in a row.

    Returns:
        The hashes, text after text, and how many there are of each text.
    """
    words, counts = hash_words(texts)
    padded = np.where(counts > 0, np.maximum(counts, ngram_words), 0)
    if not np.array_equal(padded, counts):
        ends = np.repeat(np.cumsum(counts), padded - counts)
        words = np.insert(words, ends, _FILLER)
    size = len(words) - ngram_words + 1
    if size <= 0:
        return np.zeros(0, np.uint32), np.zeros(len(texts), np.int64)
    sums = words[:size].copy()
    for i in range(1, ngram_words):
        sums *= _SHINGLE_BASE
        sums += words[i : i + size]
    hashes = (mix(sums) >> np.uint64(32)).astype(np.uint32)
    # Those that reach into the next text are none.
    filled = padded[padded > 0]
    is_whole = np.ones(len(words), bool)
    if ngram_words > 1:
        tails = np.cumsum(filled)[:, None] - np.arange(1, ngram_words)
        is_whole[tails.ravel()] = False
    return hashes[is_whole[:size]], np.maximum(padded - ngram_words + 1, 0)


def _compute_minima(shingles: NDArray[np.uint32], counts: Numbers, permutations: int) -> NDArray[np.uint32]:
    """The least value of each text under each permutation x -> a x + b modulo 2^32, a odd; shape [permutations, texts].

    Shingles are random numbers already, so each permutation is as good as any other; that they are independent of each
    other is tested.
    """
    multipliers, offsets = _permutations(permutations)
    filled = np.flatnonzero(counts)
    minima = np.full((permutations, len(filled)), np.iinfo(np.uint32).max, np.uint32)
    ends = np.cumsum(counts[filled])
    starts = ends - counts[filled]
    values = np.empty(_BLOCK_SHINGLES, np.uint32)
    for begin in range(0, len(shingles), _BLOCK_SHINGLES):
        block = shingles[begin : begin + _BLOCK_SHINGLES]
        first, last = np.searchsorted(ends, [begin, begin + len(block) - 1], side="right").tolist()
        segments = np.maximum(starts[first : last + 1] - begin, 0)
        out = values[: len(block)]
        own = minima[:, first : last + 1]
        for row in range(permutations):
            np.multiply(block, multipliers[row], out=out)
            np.add(out, offsets[row], out=out)
            np.minimum(own[row], np.minimum.reduceat(out, segments), out=own[row])
    spread = np.full((permutations, len(counts)), np.iinfo(np.uint32).max, np.uint32)
    spread[:, filled] = minima
    return spread


@cache
def _permutations(count: int) -> tuple[list[np.uint32], list[np.uint32]]:
    """Odd multipliers and offsets; fixed for ever."""
    random = mix(np.arange(1, 2 * count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    values = (random >> np.uint64(32)).astype(np.uint32)
    return list(values[0::2] | np.uint32(1)), list(values[1::2])


def _hash_bands(minima: NDArray[np.uint32], config: NearDuplicates) -> Hashes:
    rows = minima.reshape(config.bands, config.rows_per_band, -1)
    bands = np.zeros((config.bands, rows.shape[2]), np.uint64)
    for row in range(config.rows_per_band):
        bands *= _BAND_BASE
        bands += rows[:, row]
        bands = mix(bands)
    return bands
