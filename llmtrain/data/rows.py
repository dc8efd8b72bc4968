"""Windows of one source -> rows of inputs and targets.

    StreamRows   the token stream cut into windows of T; targets are the next tokens, across documents too
    PackedRows   whole documents packed into rows of T; a document's last token has no target

Shapes: N rows, T tokens of a row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from llmtrain.config.data import DataConfig
from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.shards.packing import PackIndex, open_pack_index
from llmtrain.shards.reader import ShardedTokens

Ids = NDArray[np.int64]
ReadPackIndex = Callable[[ShardedTokens, int, int], PackIndex]
"""From shards, the number of one and the sequence length to how it is packed."""


@dataclass(frozen=True)
class Rows:
    """Inputs, targets, and the document each token belongs to (numbered within the row)."""

    input_ids_NT: Ids
    labels_NT: Ids
    document_ids_NT: Ids

    @classmethod
    def empty(cls, rows: int, tokens: int) -> Self:
        """Room for so many rows."""
        return cls(*(np.empty((rows, tokens), np.int64) for _ in range(3)))

    def put(self, where: Ids, rows: "Rows") -> None:
        """Copy rows to the places `where`."""
        self.input_ids_NT[where] = rows.input_ids_NT
        self.labels_NT[where] = rows.labels_NT
        self.document_ids_NT[where] = rows.document_ids_NT

    def compute_position_ids(self) -> Ids:
        """Positions that start at 0 in each document. [N, T]."""
        index_NT = np.broadcast_to(np.arange(self.input_ids_NT.shape[1]), self.input_ids_NT.shape)
        is_first_NT = np.diff(self.document_ids_NT, axis=1, prepend=-1) != 0
        return index_NT - np.maximum.accumulate(np.where(is_first_NT, index_NT, 0), axis=1)


class StreamRows:
    """Window w holds tokens [w*T, w*T + T] of the stream: T inputs, each with the token after it as target."""

    def __init__(self, shards: ShardedTokens, sequence_length: int, mask_across_documents: bool) -> None:
        self._shards, self._length = shards, sequence_length
        self._mask_across_documents = mask_across_documents
        self.num_windows = max(0, (shards.token_count - 1) // sequence_length)

    def locate(self, window: int) -> list[tuple[int, int]]:
        """Where the inputs of a window are in the stream: first token, and the one after the last."""
        return [(window * self._length, (window + 1) * self._length)]

    def read(self, windows: Ids) -> Rows:
        """Rows of the given windows."""
        tokens = np.empty((len(windows), self._length + 1), np.int64)
        self._shards.read_rows(windows * self._length, tokens)
        inputs, labels = tokens[:, :-1], tokens[:, 1:]
        bos_id = self._shards.manifest.bos_id
        if self._mask_across_documents:
            labels = np.where(labels == bos_id, IGNORE_INDEX, labels)
        return Rows(inputs, labels, (inputs == bos_id).cumsum(axis=1))


class PackedRows:
    """Rows of the pack indexes of all shards, one shard after the other."""

    def __init__(
        self, shards: ShardedTokens, sequence_length: int, read_index: ReadPackIndex = open_pack_index
    ) -> None:
        self._shards, self._length = shards, sequence_length
        self._indexes = [read_index(shards, shard, sequence_length) for shard in range(len(shards.manifest.shards))]
        self._first_rows = np.concatenate(([0], np.cumsum([index.num_rows for index in self._indexes])))
        self.num_windows = int(self._first_rows[-1])

    def locate(self, window: int) -> list[tuple[int, int]]:
        """Where the segments of a row are in the stream: first token, and the one after the last."""
        shard = int(np.searchsorted(self._first_rows, window, "right")) - 1
        index, base = self._indexes[shard], int(self._shards.shard_starts[shard])
        row = window - int(self._first_rows[shard])
        segments = slice(int(index.row_offsets[row]), int(index.row_offsets[row + 1]))
        starts = (index.starts[segments].astype(np.int64) + base).tolist()
        return [(start, start + int(length)) for start, length in zip(starts, index.lengths[segments], strict=True)]

    def read(self, windows: Ids) -> Rows:
        """Rows of the given windows; padding repeats eos and has no target."""
        rows = Rows.empty(len(windows), self._length)
        rows.input_ids_NT.fill(self._shards.manifest.eos_id)
        rows.labels_NT.fill(IGNORE_INDEX)
        shards = np.searchsorted(self._first_rows, windows, "right") - 1
        for i, (shard, window) in enumerate(zip(shards.tolist(), windows.tolist(), strict=True)):
            self._fill(rows, i, shard, window - int(self._first_rows[shard]))
        return rows

    def _fill(self, rows: Rows, i: int, shard: int, row: int) -> None:
        index, base = self._indexes[shard], int(self._shards.shard_starts[shard])
        segments = slice(int(index.row_offsets[row]), int(index.row_offsets[row + 1]))
        position, bos_id = 0, self._shards.manifest.bos_id
        places = zip(index.starts[segments].tolist(), index.lengths[segments].tolist(), strict=True)
        for document, (start, length) in enumerate(places):
            tokens = self._shards.read(base + start, length + 1)  # one fewer at the end of the stream
            end = position + length
            rows.input_ids_NT[i, position:end] = tokens[:length]
            rows.labels_NT[i, position : position + len(tokens) - 1] = tokens[1:]
            if len(tokens) <= length or tokens[length] == bos_id:
                rows.labels_NT[i, end - 1] = IGNORE_INDEX
            rows.document_ids_NT[i, position:end] = document
            position = end
        rows.document_ids_NT[i, position:] = segments.stop - segments.start


def open_rows(
    shards: ShardedTokens, config: DataConfig, sequence_length: int, read_index: ReadPackIndex = open_pack_index
) -> StreamRows | PackedRows:
    """The reader that section `data` asks for."""
    if config.packing == "best_fit":
        return PackedRows(shards, sequence_length, read_index)
    return StreamRows(shards, sequence_length, config.mask_across_documents)
