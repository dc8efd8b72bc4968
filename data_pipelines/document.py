"""A document and its files: JSON lines, compressed with zstd, written whole or not at all."""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import zstandard

from llmtrain.errors import DataError

_LEVEL = 3


@dataclass(frozen=True)
class Document:
    """One text and where it comes from."""

    text: str
    origin: str
    """Path or URL, with the position inside it where there are several."""
    licence: str


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
        with temporary.open("wb") as raw, zstandard.ZstdCompressor(_LEVEL).stream_writer(raw, closefd=False) as file:
            for document in documents:
                file.write(json.dumps(asdict(document), ensure_ascii=False).encode() + b"\n")
                count += 1
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(
            f"{path}: could not be written: {error}. Free some space, then run `llmtrain data prepare` again: finished "
            "parts are kept."
        ) from error
    return count


def read_documents(path: Path) -> Iterator[Document]:
    """Documents of a file, in the order written.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            for line in io.TextIOWrapper(stream, encoding="utf-8"):
                yield Document(**json.loads(line))
    except (OSError, ValueError, TypeError, zstandard.ZstdError) as error:
        raise DataError(
            f"{path}: damaged or missing: {error}. Remove the folder around it and run `llmtrain data prepare` again."
        ) from error
