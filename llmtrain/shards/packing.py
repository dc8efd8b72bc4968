"""Best-fit packing: which documents share a row of fixed length, decided once per shard and sequence length.

Documents longer than a row are cut into rows; what is left over is put, longest first, into the fullest row that still
has room, so no document that fits into a row is ever cut.

    offset 0    64 bytes  magic, version, sequence length, rows, segments, first 32 bytes of the shard's sha256
    offset 64   uint64    for each row the index of its first segment, and the number of segments at the end
    then        uint64    for each segment its first token in the shard
    then        uint64    for each segment its number of tokens

Source:
    Ding et al. 2024, "Fewer Truncations Improve Language Modeling".
"""

import struct
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmtrain.errors import DataError
from llmtrain.shards.manifest import write_atomically
from llmtrain.shards.reader import ShardedTokens

_MAGIC, _VERSION, _HEADER_BYTES = b"LLMTPACK", 1, 64
_HEADER = struct.Struct("<8sIIQQ32s")


@dataclass(frozen=True)
class PackIndex:
    """Rows of one shard; row r holds segments `row_offsets[r]` to `row_offsets[r + 1]`."""

    row_offsets: NDArray[np.uint64]
    starts: NDArray[np.uint64]
    lengths: NDArray[np.uint64]

    @property
    def num_rows(self) -> int:
        """Rows of the shard."""
        return len(self.row_offsets) - 1


def pack_documents(document_ends: NDArray[np.uint64], sequence_length: int) -> PackIndex:
    """Assign every token of a shard to a row.

    Args:
        document_ends: token index after each document, ascending.
        sequence_length: tokens of a row.
    """
    ends = document_ends.astype(np.int64)
    starts = np.concatenate(([0], ends[:-1]))
    whole_rows = (ends - starts) // sequence_length
    rows: list[list[tuple[int, int]]] = []
    for document in np.flatnonzero(whole_rows).tolist():
        first = int(starts[document])
        rows += [[(first + i * sequence_length, sequence_length)] for i in range(int(whole_rows[document]))]
    rest_starts = starts + whole_rows * sequence_length
    rest_lengths = ends - rest_starts
    rows += _fit(rest_starts, rest_lengths, sequence_length)
    segments = [segment for row in rows for segment in row]
    columns = np.array(segments, np.uint64).reshape(-1, 2)
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.uint64)
    return PackIndex(offsets, columns[:, 0].copy(), columns[:, 1].copy())


def _fit(starts: NDArray[np.int64], lengths: NDArray[np.int64], sequence_length: int) -> list[list[tuple[int, int]]]:
    rows: list[list[tuple[int, int]]] = []
    rows_by_room: defaultdict[int, list[int]] = defaultdict(list)
    rooms = 0  # bit r is set while some row has room for exactly r more tokens
    for document in np.argsort(-lengths, kind="stable").tolist():
        start, length = int(starts[document]), int(lengths[document])
        if length == 0:
            continue
        large_enough = rooms >> length
        if large_enough:
            room = length + (large_enough & -large_enough).bit_length() - 1
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                rooms &= ~(1 << room)
        else:
            room, row = sequence_length, len(rows)
            rows.append([])
        rows[row].append((start, length))
        if room > length:
            rows_by_room[room - length].append(row)
            rooms |= 1 << (room - length)
    return rows


def build_pack_indexes(shards: ShardedTokens, sequence_length: int, part: int = 0, parts: int = 1) -> int:
    """Write the pack index of every shard that lacks one.

    Args:
        shards: one split of one source.
        sequence_length: tokens of a row.
        part: which share of the shards; several processes may share the work.
        parts: number of shares.

    Returns:
        How many were written.
    """
    written = 0
    for shard in range(part, len(shards.manifest.shards), parts):
        path = _index_path(shards, shard, sequence_length)
        if not path.exists():
            index = pack_documents(shards.document_ends(shard), sequence_length)
            sha256 = bytes.fromhex(shards.manifest.shards[shard].sha256)
            fields = (_MAGIC, _VERSION, sequence_length, index.num_rows, len(index.starts), sha256)
            arrays = (index.row_offsets, index.starts, index.lengths)
            write_atomically(path, _HEADER.pack(*fields) + b"".join(array.tobytes() for array in arrays))
            written += 1
    return written


def count_packed_rows(shards: ShardedTokens, sequence_length: int) -> int | None:
    """Rows of all shards; None where some shard is not packed yet."""
    count = len(shards.manifest.shards)
    if not all(_index_path(shards, shard, sequence_length).exists() for shard in range(count)):
        return None
    return sum(open_pack_index(shards, shard, sequence_length).num_rows for shard in range(count))


def pack_shard(shards: ShardedTokens, shard: int, sequence_length: int) -> PackIndex:
    """The pack index of a shard: the one on disk, or else one in memory, for data that may not be written."""
    if _index_path(shards, shard, sequence_length).exists():
        return open_pack_index(shards, shard, sequence_length)
    return pack_documents(shards.document_ends(shard), sequence_length)


def open_pack_index(shards: ShardedTokens, shard: int, sequence_length: int) -> PackIndex:
    """Map the pack index of a shard.

    Raises:
        DataError: it is missing, or belongs to another shard.
    """
    path = _index_path(shards, shard, sequence_length)
    remedy = "Remove the file; the next run writes it again."
    try:
        with path.open("rb") as file:
            raw = file.read(_HEADER_BYTES)
        magic, version, length, rows, segments, sha256 = _HEADER.unpack(raw)
        size = path.stat().st_size
    except (OSError, struct.error) as error:
        raise DataError(f"pack index {path}: cannot be read: {error}. {remedy}") from error
    expected = bytes.fromhex(shards.manifest.shards[shard].sha256)
    if (magic, version, length, sha256) != (_MAGIC, _VERSION, sequence_length, expected):
        raise DataError(f"pack index {path}: belongs to another shard, length or version. {remedy}")
    if size != _HEADER_BYTES + 8 * (rows + 1 + 2 * segments):
        raise DataError(f"pack index {path}: {size:,} bytes do not hold {rows:,} rows: truncated. {remedy}")
    numbers = np.asarray(np.memmap(path, np.uint64, "r", _HEADER_BYTES))
    return PackIndex(numbers[: rows + 1], numbers[rows + 1 : rows + 1 + segments], numbers[rows + 1 + segments :])


def _index_path(shards: ShardedTokens, shard: int, sequence_length: int) -> Path:
    return shards.folder / Path(shards.manifest.shards[shard].file).with_suffix(f".pack-{sequence_length}")
