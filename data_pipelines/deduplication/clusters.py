"""Connected documents, as a forest over their numbers in a file: the root of a cluster is its least number.

Source: Tarjan 1975 (union-find); the hooking of many roots at once follows Shiloach and Vishkin 1982.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

_CHUNK = 1 << 22


class Clusters:
    """Clusters of documents. What they are does not depend on the order in which edges come."""

    def __init__(self, path: Path, size: int) -> None:
        """Every document by itself.

        Args:
            path: of the file that holds the forest: 4 bytes a document, 8 from 2^32 documents on.
            size: documents.
        """
        dtype = np.uint32 if size < 1 << 32 else np.int64
        self._parents: NDArray[Any] = np.lib.format.open_memmap(path, "w+", dtype, (max(size, 1),))
        for start in range(0, size, _CHUNK):
            self._parents[start : start + _CHUNK] = np.arange(start, min(start + _CHUNK, size))

    def add(self, first: Numbers, second: Numbers) -> None:
        """Take in edges between documents."""
        while len(first):
            a, b = self.find(first), self.find(second)
            differ = a != b
            first, second = np.minimum(a, b)[differ], np.maximum(a, b)[differ]
            # A root hangs itself below the least root that it meets; what else it met is looked at again.
            order = np.lexsort((first, second))
            first, second = first[order], second[order]
            is_least = np.ones(len(second), bool)
            np.not_equal(second[1:], second[:-1], out=is_least[1:])
            self._parents[second[is_least]] = first[is_least]
            first, second = first[~is_least], second[~is_least]

    def find(self, documents: Numbers) -> Numbers:
        """The least number of the cluster of each document."""
        nodes, roots = documents, self._parents[documents]
        while True:
            above = self._parents[roots]
            if np.array_equal(above, roots):
                break
            self._parents[nodes] = above
            roots = above
        return np.asarray(roots, np.int64)
