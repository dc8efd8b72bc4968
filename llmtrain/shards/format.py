"""The shard file: tokens of many documents, memory-mapped.

    offset 0     64 bytes   magic, format version, bytes per token, token count, document count (little endian)
    offset 64    tokens     uint16 or uint32, documents one after the other, each [bos] ids [eos]
    aligned to 8 ends       uint64, for each document the token index after its last token

In: a path. Out: the header, and views of tokens and document ends.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrain.errors import DataError

MAGIC = b"LLMTSHRD"
FORMAT_VERSION = 1
HEADER_BYTES = 64
_HEADER = struct.Struct("<8sIIQQ")
_DTYPES: dict[int, type[np.unsignedinteger[Any]]] = {2: np.uint16, 4: np.uint32}

Tokens = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class ShardHeader:
    """What the first bytes of a shard say."""

    bytes_per_token: int
    token_count: int
    document_count: int

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Number format of a token."""
        return np.dtype(_DTYPES[self.bytes_per_token])

    @property
    def ends_offset(self) -> int:
        """Where the document ends begin."""
        return -(-(HEADER_BYTES + self.token_count * self.bytes_per_token) // 8) * 8

    @property
    def file_bytes(self) -> int:
        """Size of a whole file with this header."""
        return self.ends_offset + 8 * self.document_count

    def encode(self) -> bytes:
        """The header as it stands in the file."""
        fields = (MAGIC, FORMAT_VERSION, self.bytes_per_token, self.token_count, self.document_count)
        return _HEADER.pack(*fields).ljust(HEADER_BYTES, b"\0")


def read_header(path: Path) -> ShardHeader:
    """Read and check the header and the size of a shard.

    Raises:
        DataError: the file is missing, is no shard, has another version, or is shorter or longer than it says.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"shard {path}: cannot be read: {error}. Run `llmtrain data prepare` again.") from error
    if len(raw) < HEADER_BYTES or raw[:8] != MAGIC:
        raise DataError(f"shard {path}: is not a token shard. Run `llmtrain data prepare` again.")
    _, version, bytes_per_token, token_count, document_count = _HEADER.unpack(raw[: _HEADER.size])
    if version != FORMAT_VERSION or bytes_per_token not in _DTYPES:
        raise DataError(
            f"shard {path}: format version {version}, {bytes_per_token} bytes per token; this llmtrain reads version "
            f"{FORMAT_VERSION} with 2 or 4. Write it again with `llmtrain data prepare`."
        )
    header = ShardHeader(bytes_per_token, token_count, document_count)
    if size != header.file_bytes:
        raise DataError(
            f"shard {path}: header says {token_count:,} tokens and {document_count:,} documents, {header.file_bytes:,} "
            f"bytes; the file holds {size:,}: truncated or damaged. Write it again with `llmtrain data prepare`."
        )
    return header


def map_tokens(path: Path, header: ShardHeader) -> Tokens:
    """A view of the tokens, read from disk when touched."""
    if header.token_count == 0:
        return np.empty(0, header.dtype)
    # A plain array over the mapping: slices of np.memmap itself cost several times as much.
    return np.asarray(np.memmap(path, header.dtype, "r", HEADER_BYTES, (header.token_count,)))


def map_document_ends(path: Path, header: ShardHeader) -> NDArray[np.uint64]:
    """A view of the document ends."""
    if header.document_count == 0:
        return np.empty(0, np.uint64)
    return np.asarray(np.memmap(path, np.uint64, "r", header.ends_offset, (header.document_count,)))
