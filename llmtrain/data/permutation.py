"""A shuffle without a shuffled list: a keyed bijection of [0, n), any n, in constant memory.

A Feistel network over the next even number of bits, with splitmix64 as round function; values that fall outside [0, n)
are sent through again until they fall inside (cycle walking).

Source:
    Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"; splitmix64: Steele, Lea and Flood 2014.
"""

import numpy as np
from numpy.typing import NDArray

# Large domains look random after four rounds, domains of a handful of windows after eight; twelve leave a margin.
ROUNDS = 12

_MASK_64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers; arithmetic wraps."""
    values = values + np.uint64(_GOLDEN)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def derive_key(*parts: int) -> int:
    """One 64-bit key from several numbers (seed, source, epoch, ...); any change of any part changes it all."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = splitmix64(key ^ np.uint64(part & _MASK_64))
    return int(key[0])


class Permutation:
    """A bijection of [0, size) chosen by a key."""

    def __init__(self, size: int, key: int) -> None:
        self.size = size
        half_bits = max(1, -(-(size - 1).bit_length() // 2))
        self._half_bits, self._half_mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
        seeds = np.array([(key + (i + 1) * _GOLDEN) & _MASK_64 for i in range(ROUNDS)], np.uint64)
        self._round_keys = splitmix64(seeds)

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each index goes; all lie in [0, size)."""
        values = self._encrypt(indices.astype(np.uint64))
        outside = np.flatnonzero(values >= self.size)
        while len(outside):
            values[outside] = self._encrypt(values[outside])
            outside = outside[values[outside] >= self.size]
        return values.astype(np.int64)

    def _encrypt(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half_bits, values & self._half_mask
        for key in self._round_keys:
            left, right = right, left ^ (splitmix64(right ^ key) & self._half_mask)
        return (left << self._half_bits) | right
