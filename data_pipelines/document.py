"""A document and its files: JSON lines, compressed with zstd, written whole or not at all."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import zstandard

from llmtrain.errors import DataError

_LEVEL = 3
_READ_BYTES = 1 << 18


@dataclass(frozen=True)
class Document:
    """One text and where it comes from."""

    text: str
    origin: str
    """Path or URL, with the position inside it where there are several."""
    licence: str
    language: str = ""
    """ISO 639-1 code where it is known; for code the programming language."""
    id: str = ""
    """Identity: of the text as it was kept by cleaning, whatever deduplication takes out of it; see `identify`."""
    place: str = field(default="", compare=False)
    """Where it was read: the input as `paths` spells it, and the number or name of the record inside it."""


def identify(text: str) -> str:
    """Identity of a text: 32 hexadecimal digits of its sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[32:]


def to_utf8(name: str) -> str:
    r"""A name with what UTF-8 cannot hold as `\udce9`: names of files are any bytes, JSON can hold lone surrogates."""
    return name.encode("utf-8", "backslashreplace").decode()


def hash_file(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Write a file of documents; it appears when it is complete.

    Returns:
        How many there were.

    Raises:
        DataError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as raw, _compress(raw) as file:
            for document in documents:
                file.write(json.dumps(asdict(document), ensure_ascii=False).encode() + b"\n")
                count += 1
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{path}: could not be written: {error}. Free some space, then run `llmtrain data prepare` again: finished "
            "parts are kept."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _compress(raw: BinaryIO) -> zstandard.ZstdCompressionWriter:
    # Without a checksum most flipped bits would come out as other text.
    return zstandard.ZstdCompressor(_LEVEL, write_checksum=True).stream_writer(raw, closefd=False)


def read_documents(path: Path) -> Iterator[Document]:
    """Documents of a file, in the order written.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        for line in read_zstd_lines(path):
            yield Document(**json.loads(line))
    except (OSError, EOFError, ValueError, TypeError, zstandard.ZstdError) as error:
        raise DataError(
            f"{path}: damaged or missing: {error}. Remove the folder around it and run `llmtrain data prepare` again."
        ) from error


def read_zstd_lines(path: Path) -> Iterator[bytes]:
    """Lines of a compressed file of one or more frames, without their ends.

    Raises:
        EOFError: the file is cut off; zstandard's own reader would end in silence.
        OSError: it cannot be read.
        zstandard.ZstdError: it is damaged.
    """
    decompressor, rest = zstandard.ZstdDecompressor().decompressobj(), b""
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            while data:
                if decompressor.eof:
                    decompressor = zstandard.ZstdDecompressor().decompressobj()
                *lines, rest = (rest + decompressor.decompress(data)).split(b"\n")
                yield from lines
                data = decompressor.unused_data
    if not decompressor.eof:
        raise EOFError("it is cut off")
    if rest:
        yield rest
