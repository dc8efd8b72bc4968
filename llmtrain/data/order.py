"""The sample order: global sample index -> (source, epoch, window), a pure function.

    global index -> stage of the mixture
    in the stage -> block of 512 samples                      which source each is: apportioned sample by sample,
                                                              then shuffled within 64 with a key of the block
    sample       -> the j-th of its source -> epoch, rank     j divided by the windows of one epoch
    rank         -> window                                    permuted with a key of source and epoch

At every sample of a stage each source is within 20 of its share. Nothing is stored or built, so opening costs nothing,
extending a run or giving it another stage never reorders its past, and the order depends only on the seed and the
index: not on ranks, micro-batches or workers.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmtrain.data.apportion import apportion
from llmtrain.data.mixture import Mixture
from llmtrain.data.permutation import Permutation, derive_key, splitmix64

BLOCK_SAMPLES = 512
# Samples whose sources are shuffled among themselves: enough to leave no period, few enough to stay near the shares.
SHUFFLED_SAMPLES = 64
_ORDER_IN_BLOCK, _ORDER_IN_EPOCH = 1, 2


@dataclass(frozen=True)
class Samples:
    """Where consecutive samples come from; all three arrays are as long as the range asked for."""

    sources: NDArray[np.int64]
    epochs: NDArray[np.int64]
    windows: NDArray[np.int64]


class SampleOrder:
    """The order of one mixture under one seed."""

    def __init__(self, mixture: Mixture, seed: int) -> None:
        self.mixture, self._seed = mixture, seed
        self._draw_block = functools.lru_cache(maxsize=64)(self._compute_block)
        self._permutation = functools.lru_cache(maxsize=4096)(self._build_permutation)
        self._first_samples = [stage.first_sample for stage in mixture.stages]
        self._counts_before = [np.zeros(len(mixture.names), np.int64)]
        for stage, end in enumerate(self._first_samples[1:]):
            self._counts_before.append(self._count_until(stage, end))

    def locate(self, start: int, count: int) -> Samples:
        """Where samples [start, start + count) come from."""
        parts = []
        while count:
            stage = int(np.searchsorted(self._first_samples, start, "right")) - 1
            block, offset = divmod(start - self._first_samples[stage], BLOCK_SAMPLES)
            stage_end = self._first_samples[stage + 1] if stage + 1 < len(self._first_samples) else start + count
            taken = min(count, BLOCK_SAMPLES - offset, stage_end - start)
            samples, cut = self._draw_block(stage, block), slice(offset, offset + taken)
            parts.append((samples.sources[cut], samples.epochs[cut], samples.windows[cut]))
            start, count = start + taken, count - taken
        return Samples(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def count_sources(self, samples: int) -> NDArray[np.int64]:
        """How many of the first `samples` samples, at least one, are of each source."""
        return self._count_until(int(np.searchsorted(self._first_samples, samples, "left")) - 1, samples)

    def _compute_block(self, stage: int, block: int) -> Samples:
        sources, before = self._draw_sources(stage, block)
        epochs, windows = np.empty(BLOCK_SAMPLES, np.int64), np.empty(BLOCK_SAMPLES, np.int64)
        for source in np.unique(sources).tolist():
            places = np.flatnonzero(sources == source)
            epochs[places], ranks = np.divmod(before[source] + np.arange(len(places)), self.mixture.windows[source])
            for epoch in np.unique(epochs[places]).tolist():
                here = epochs[places] == epoch
                windows[places[here]] = self._permutation(source, epoch)(ranks[here])
        return Samples(sources, epochs, windows)

    def _draw_sources(self, stage: int, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The source of each sample of a block, and how many samples of each source there were before it."""
        counts = apportion(block * BLOCK_SAMPLES, BLOCK_SAMPLES, self.mixture.stages[stage].weights)
        sources = np.diff(counts, axis=0).argmax(axis=1)  # each sample goes to exactly one source
        stage_key = (self._first_samples[stage],) if stage else ()
        key = derive_key(self._seed, _ORDER_IN_BLOCK, block, *stage_key)
        draws = splitmix64(np.arange(BLOCK_SAMPLES, dtype=np.uint64) ^ np.uint64(key))
        order = draws.reshape(-1, SHUFFLED_SAMPLES).argsort(axis=1, kind="stable")
        shuffled = np.take_along_axis(sources.reshape(-1, SHUFFLED_SAMPLES), order, axis=1).reshape(-1)
        return shuffled, self._counts_before[stage] + counts[0]

    def _count_until(self, stage: int, end: int) -> NDArray[np.int64]:
        """Samples of each source before sample `end`, in or at the end of a stage."""
        block, rest = divmod(end - self._first_samples[stage], BLOCK_SAMPLES)
        sources, before = self._draw_sources(stage, block)
        return before + np.bincount(sources[:rest], minlength=len(before))

    def _build_permutation(self, source: int, epoch: int) -> Permutation:
        # Keyed by the source's name, so that adding another source does not reshuffle this one.
        name = int.from_bytes(self.mixture.names[source].encode().ljust(8)[:64], "little")
        key = derive_key(self._seed, _ORDER_IN_EPOCH, *_words(name), epoch)
        return Permutation(self.mixture.windows[source], key)


def _words(number: int) -> list[int]:
    return [number >> shift & (1 << 64) - 1 for shift in range(0, max(1, number.bit_length()), 64)]
