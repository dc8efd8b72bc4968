"""Items of evaluation sets, read from files: JSON lines or text, plain or compressed with gzip or zstd."""

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import zstandard

from data_pipelines.document import read_zstd_lines
from data_pipelines.sources.unit import expand_path
from llmtrain.errors import DataError

_PLACE = "corpus.steps, decontaminate.against"
_PACKED = (".gz", ".zst")
_FORMATS = (".jsonl", ".txt")


def find_files(against: Sequence[str]) -> list[Path]:
    """All files, sorted, each once.

    Raises:
        DataError: an entry matches no file, or a file has an unknown ending.
    """
    found: set[Path] = set()
    for entry in against:
        files = [path for path in expand_path(entry) if path.is_file()]
        if not files:
            raise DataError(f"{_PLACE}: '{entry}' matches no file. Correct the path, or leave it out.")
        found |= set(files)
    for path in found:
        if _find_format(path) not in _FORMATS:
            raise DataError(
                f"{_PLACE}: '{path}' has an unknown ending. Allowed: {', '.join(_FORMATS)}, also with "
                f"{' or '.join(_PACKED)} behind it. Rename or convert it."
            )
    return sorted(found)


def hash_files(against: Sequence[str]) -> list[str]:
    """sha256 of the content of each file; a file is read again only when its size or time has changed.

    Raises:
        DataError: a file is missing or unreadable.
    """
    return [_hash_file(path, path.stat().st_size, path.stat().st_mtime_ns) for path in find_files(against)]


def read_items(path: Path, text_fields: Sequence[str]) -> Iterator[str]:
    """Texts of one file: of the fields of each record, or paragraphs.

    Raises:
        DataError: the file is damaged, or a record has none of the fields.
    """
    try:
        content = _unpack(path).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zstandard.ZstdError) as error:
        raise DataError(f"{_PLACE}: {path}: damaged or not UTF-8: {error}. Fetch it again, or leave it out.") from error
    if _find_format(path) == ".txt":
        yield from content.replace("\r\n", "\n").split("\n\n")
        return
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{_PLACE}: {path}: line {number} is not a record in JSON: {error}. Mend or leave out."
            ) from error
        texts = list(_find_texts(record, text_fields)) if isinstance(record, dict) else []
        if not texts:
            keys = ", ".join(sorted(record)) if isinstance(record, dict) else "no fields at all"
            raise DataError(
                f"{_PLACE}: {path}: line {number} has text in none of text_fields = {list(text_fields)}; it has: "
                f"{keys}. Name one of its fields in text_fields."
            )
        yield from texts


def _find_texts(record: dict[str, object], text_fields: Sequence[str]) -> Iterator[str]:
    for field in text_fields:
        value = record.get(field)
        yield from (text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))


def _find_format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _unpack(path: Path) -> bytes:
    match path.suffix.lower():
        case ".gz":
            return gzip.decompress(path.read_bytes())
        case ".zst":
            return b"\n".join(read_zstd_lines(path))
        case _:
            return path.read_bytes()


@lru_cache(maxsize=1024)
def _hash_file(path: Path, size: int, time: int) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{_PLACE}: {path}: cannot be read: {error}. Mend that, or leave it out.") from error
