"""The sample order: global sample index -> (source, epoch, window), a pure function.

    global index -> block of 512 samples
    block        -> how many samples of each source           apportioned exactly, within 4 of every share
                 -> in which order                            permuted with a key of the block
    sample       -> the j-th of its source -> epoch, rank     j divided by the windows of one epoch
    rank         -> window                                    permuted with a key of source and epoch

Nothing is stored or built, so opening costs nothing, extending a run never reorders its past, and the order depends
only on the seed and the index: not on ranks, micro-batches or workers.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmtrain.data.mixture import Mixture
from llmtrain.data.permutation import Permutation, derive_key

BLOCK_SAMPLES = 512
_ORDER_IN_BLOCK, _ORDER_IN_EPOCH = 1, 2


@dataclass(frozen=True)
class Samples:
    """Where consecutive samples come from; all three arrays are as long as the range asked for."""

    sources: NDArray[np.int64]
    epochs: NDArray[np.int64]
    windows: NDArray[np.int64]


def apportion(count: int, weights: tuple[int, ...]) -> list[int]:
    """Samples of each source among the first `count`: whole numbers that never shrink and add up to `count`.

    A balanced tree: at each node the left half gets its share of the node's samples, rounded to the nearest.

    Args:
        count: samples.
        weights: positive integers.
    """
    if len(weights) == 1:
        return [count]
    middle = len(weights) // 2
    left, total = sum(weights[:middle]), sum(weights)
    left_count = (2 * count * left + total) // (2 * total)
    return apportion(left_count, weights[:middle]) + apportion(count - left_count, weights[middle:])


class SampleOrder:
    """The order of one mixture under one seed."""

    def __init__(self, mixture: Mixture, seed: int) -> None:
        self.mixture, self._seed = mixture, seed
        self._locate_block = functools.lru_cache(maxsize=64)(self._compute_block)
        self._permutation = functools.lru_cache(maxsize=4096)(self._build_permutation)

    def locate(self, start: int, count: int) -> Samples:
        """Where samples [start, start + count) come from."""
        first, last = start // BLOCK_SAMPLES, (start + count - 1) // BLOCK_SAMPLES
        blocks = [self._locate_block(block) for block in range(first, last + 1)]
        cut = slice(start - first * BLOCK_SAMPLES, start - first * BLOCK_SAMPLES + count)
        columns = zip(*((block.sources, block.epochs, block.windows) for block in blocks), strict=True)
        return Samples(*(np.concatenate(column)[cut] for column in columns))

    def _compute_block(self, block: int) -> Samples:
        before = np.array(apportion(block * BLOCK_SAMPLES, self.mixture.weights), np.int64)
        after = np.array(apportion((block + 1) * BLOCK_SAMPLES, self.mixture.weights), np.int64)
        sources = np.repeat(np.arange(len(before)), after - before)
        epochs, windows = np.empty(BLOCK_SAMPLES, np.int64), np.empty(BLOCK_SAMPLES, np.int64)
        position = 0
        for source in np.flatnonzero(after > before).tolist():
            indices = np.arange(before[source], after[source])
            size = self.mixture.windows[source]
            for epoch in range(int(indices[0]) // size, int(indices[-1]) // size + 1):
                ranks = indices[(indices >= epoch * size) & (indices < (epoch + 1) * size)] - epoch * size
                here = slice(position, position + len(ranks))
                epochs[here] = epoch
                windows[here] = self._permutation(source, epoch)(ranks)
                position += len(ranks)
        key = derive_key(self._seed, _ORDER_IN_BLOCK, block)
        order = Permutation(BLOCK_SAMPLES, key)(np.arange(BLOCK_SAMPLES))
        return Samples(sources[order], epochs[order], windows[order])

    def _build_permutation(self, source: int, epoch: int) -> Permutation:
        # Keyed by the source's name, so that adding another source does not reshuffle this one.
        name = int.from_bytes(self.mixture.names[source].encode().ljust(8)[:64], "little")
        key = derive_key(self._seed, _ORDER_IN_EPOCH, *_words(name), epoch)
        return Permutation(self.mixture.windows[source], key)


def _words(number: int) -> list[int]:
    return [number >> shift & (1 << 64) - 1 for shift in range(0, max(1, number.bit_length()), 64)]
