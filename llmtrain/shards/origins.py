"""The file beside a shard that says where each of its documents comes from; memory-mapped, read record by record.

    offset 0      64 bytes   magic, format version, document count, bytes of all records (little endian)
    offset 64     records    for each document a JSON list: origin, licence, language, and where it was read
    aligned to 8  offsets    uint64, first byte of each record counted from offset 64, and the end of the last
    then          ids        16 bytes, for each document its identity
    then          by id      uint32, numbers of the documents in ascending order of their ids

In: the origins of the documents of a shard, in its order. Out: the file; the origin of a document; documents by id.
"""

import bisect
import hashlib
import json
import os
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmtrain.errors import DataError

MAGIC = b"LLMTDOCS"
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)  # no record of version 1 says where it was read
HEADER_BYTES = 64
ID_BYTES = 16
_HEADER = struct.Struct("<8sI4xQQ")
_REMEDY = "Write it again with `llmtrain data prepare`."


@dataclass(frozen=True)
class Origin:
    """Which document this is and where it comes from."""

    id: str
    """32 hexadecimal digits."""
    origin: str
    """Path or URL, with the position inside it where there are several."""
    licence: str
    language: str = ""
    place: str = ""
    """Input and number of the record in it, where `origin` does not say that."""


class OriginsWriter:
    """Writes one file; records go to disk at once, 24 bytes a document stay in memory until the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w+b")
        self._file.write(b"\0" * HEADER_BYTES)
        self._ends = array("Q", [0])
        self._ids = bytearray()
        self._has_places = False

    def write(self, origins: Sequence[Origin]) -> None:
        """Append documents.

        Raises:
            DataError: an id is not 32 hexadecimal digits.
        """
        records = []
        for origin in origins:
            try:
                number = bytes.fromhex(origin.id)
            except ValueError:
                number = b""
            if len(number) != ID_BYTES:
                raise DataError(
                    f"{self.path}: document id {origin.id!r} of {origin.origin} is not 32 hexadecimal digits. "
                    "Make the documents again with `llmtrain data prepare`."
                )
            self._ids += number
            told = [origin.origin, origin.licence, origin.language, *([origin.place] if origin.place else [])]
            self._has_places |= bool(origin.place)
            record = json.dumps(told, ensure_ascii=False).encode()
            self._ends.append(self._ends[-1] + len(record))
            records.append(record)
        self._file.write(b"".join(records))

    def close(self) -> tuple[int, str]:
        """Finish the file.

        Returns:
            Its size in bytes and its sha256.
        """
        count, record_bytes = len(self._ends) - 1, self._ends[-1]
        self._file.write(b"\0" * (_offsets_start(record_bytes) - HEADER_BYTES - record_bytes))
        self._file.write(np.array(self._ends, np.uint64).tobytes())
        self._file.write(self._ids)
        halves = np.frombuffer(bytes(self._ids), ">u8").reshape(-1, 2)
        self._file.write(np.lexsort((halves[:, 1], halves[:, 0])).astype(np.uint32).tobytes())
        size = self._file.tell()
        self._file.seek(0)
        version = FORMAT_VERSION if self._has_places else 1
        self._file.write(_HEADER.pack(MAGIC, version, count, record_bytes).ljust(HEADER_BYTES, b"\0"))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        self._file.close()
        return size, digest

    def abandon(self) -> None:
        """Remove the unfinished file."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Origins:
    """An opened file: its header is checked, the rest is read when touched."""

    def __init__(self, path: Path, document_count: int) -> None:
        """Map a file.

        Args:
            path: the file.
            document_count: documents of the shard it belongs to.

        Raises:
            DataError: it is missing, damaged, of another version, or belongs to another shard.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                magic, version, count, record_bytes = _HEADER.unpack(file.read(_HEADER.size))
            size = path.stat().st_size
        except (OSError, struct.error) as error:
            raise DataError(f"origins {path}: cannot be read: {error}. {_REMEDY}") from error
        if magic != MAGIC or version not in READABLE_VERSIONS:
            raise DataError(
                f"origins {path}: magic {magic!r}, format version {version}; this llmtrain reads {MAGIC!r}, version "
                f"{' and '.join(map(str, READABLE_VERSIONS))}. {_REMEDY}"
            )
        expected = compute_file_bytes(count, record_bytes)
        if count != document_count or size != expected:
            raise DataError(
                f"origins {path}: header says {count:,} documents, {expected:,} bytes; the shard has "
                f"{document_count:,} documents and the file {size:,} bytes: truncated, or of another shard. {_REMEDY}"
            )
        self.document_count = count
        self._bytes = np.asarray(np.memmap(path, np.uint8, "r"))
        start = _offsets_start(record_bytes)
        self._offsets: NDArray[np.uint64] = self._bytes[start : start + 8 * (count + 1)].view(np.uint64)
        start += 8 * (count + 1)
        self._ids = self._bytes[start : start + ID_BYTES * count].reshape(count, ID_BYTES)
        self._by_id: NDArray[np.uint32] = self._bytes[start + ID_BYTES * count :].view(np.uint32)

    def read(self, document: int) -> Origin:
        """Origin of a document by its number in the shard.

        Raises:
            DataError: the record is damaged.
        """
        first, last = (HEADER_BYTES + int(self._offsets[document + i]) for i in (0, 1))
        try:
            origin, licence, language, *place = json.loads(self._bytes[first:last].tobytes())
        except ValueError as error:
            raise DataError(f"origins {self.path}: record {document} is damaged: {error}. {_REMEDY}") from error
        return Origin(self._read_id(document).hex(), origin, licence, language, *place[:1])

    def find(self, document_id: str) -> list[int]:
        """Numbers of the documents with an id, by binary search."""
        wanted, count = bytes.fromhex(document_id), self.document_count
        place = bisect.bisect_left(range(count), wanted, key=lambda i: self._read_id(int(self._by_id[i])))
        found = []
        while place < count and self._read_id(document := int(self._by_id[place])) == wanted:
            found.append(document)
            place += 1
        return found

    def _read_id(self, document: int) -> bytes:
        return bytes(self._ids[document])


def compute_file_bytes(document_count: int, record_bytes: int) -> int:
    """Size of a whole file."""
    return _offsets_start(record_bytes) + 8 * (document_count + 1) + (ID_BYTES + 4) * document_count


def _offsets_start(record_bytes: int) -> int:
    return -(-(HEADER_BYTES + record_bytes) // 8) * 8
