"""Files of records -> conversations, preferences or prompts, with what was left out and which files they were."""

import hashlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from glob import glob
from pathlib import Path
from typing import Any, Generic

import zstandard

from llmtrain.config.records import RecordFormat, RecordsConfig
from llmtrain.conversations.formats import parse_conversations, parse_preferences, parse_prompts, tell_format
from llmtrain.conversations.records import Conversation, Message, Preference, Prompt, identify
from llmtrain.conversations.row import COLUMNS, Row, RowError
from llmtrain.conversations.split import RecordT
from llmtrain.errors import DataError

_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", ".json.zst", ".parquet")
_DAMAGE = (OSError, EOFError, zlib.error, zstandard.ZstdError, UnicodeDecodeError)
_Parse = Callable[[Row, RecordFormat, str, Counter[str]], Iterator[RecordT]]


@dataclass
class Records(Generic[RecordT]):
    """What was read."""

    items: list[RecordT] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason -> count."""
    files: list[tuple[str, str]] = field(default_factory=list)
    """Path and sha256 of each file, in the order read: the identity of the data."""


def read_conversations(records: RecordsConfig, source: str) -> Records[Conversation]:
    """Conversations of all files.

    Args:
        records: which files, and their format.
        source: name that the records carry.

    Returns:
        Those that are no repeat of an earlier one, in order; the rest is counted.

    Raises:
        DataError: a path matches nothing, a file is damaged or of no known kind, a row does not follow its format, or
            nothing is left.
    """
    return _read(records, source, parse_conversations)


def read_preferences(records: RecordsConfig, source: str) -> Records[Preference]:
    """Preferences of all files; arguments, result and errors as of `read_conversations`."""
    return _read(records, source, parse_preferences)


def read_prompts(records: RecordsConfig, source: str) -> Records[Prompt]:
    """Prompts of all files, also out of conversations and preferences; else as `read_conversations`.

    Of records with one prompt the first one counts.
    """
    return _read(records, source, parse_prompts)


def _read(records: RecordsConfig, source: str, parse: _Parse[RecordT]) -> Records[RecordT]:
    result: Records[RecordT] = Records()
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    ids: set[str] = set()
    for file in find_files(records.paths):
        result.files.append((file, _hash_file(file)))
        for item in _read_file(file, records, source, parse, left_out):
            content = identify(*_content(item))
            if content in seen:
                left_out["duplicate"] += 1
                continue
            seen.add(content)
            # Files that count their rows use the same ids for other content.
            kept = item if item.id not in ids else _rename(item, content)
            ids.add(kept.id)
            result.items.append(kept)
    result.left_out = dict(sorted(left_out.items()))
    if not result.items:
        told = ", ".join(f"{reason} {count:,}" for reason, count in result.left_out.items()) or "the files are empty"
        raise DataError(f"{', '.join(records.paths)}: no record is left: {told}. Look at the files and their format.")
    return result


def find_files(paths: tuple[str, ...]) -> list[str]:
    """Files of paths and globs, each once, those of a glob in order of name.

    Raises:
        DataError: a path matches no file, or a file is of no known kind.
    """
    files: list[str] = []
    for path in paths:
        matches = [path] if Path(path).is_file() else _glob(path)
        if not matches:
            raise DataError(
                f"{path}: no such file. Mend the path; a folder is named by a glob: {path.rstrip('/')}/*.jsonl."
            )
        files += matches
    unknown = [file for file in files if not file.endswith(_ENDINGS)]
    if unknown:
        raise DataError(f"{unknown[0]}: not a file of records. Use {', '.join(_ENDINGS)}.")
    return list(dict.fromkeys(files))


def _glob(pattern: str) -> list[str]:
    found = glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    return sorted(path for path in found if Path(path).is_file())


def _read_file(
    file: str, records: RecordsConfig, source: str, parse: _Parse[RecordT], left_out: Counter[str]
) -> Iterator[RecordT]:
    form = records.format
    for row in _read_rows(file):
        form = form or tell_format(row)
        try:
            yield from list(parse(row, form, source, left_out))
        except RowError as error:
            if records.bad_rows == "refuse" or error.reason == COLUMNS:
                raise
            left_out[error.reason] += 1


def _read_rows(file: str) -> Iterator[Row]:
    number = 0
    try:
        if file.endswith(".parquet"):
            for number, values in enumerate(_read_parquet(file), start=1):
                yield Row(file, number, values)
            return
        with _open(file) as stream:
            if ".jsonl" not in Path(file).name and stream.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                for number, value in enumerate(json.loads(stream.read()), start=1):
                    yield Row(file, number, _check_row(file, number, value))
                return
            for number, line in enumerate(io.TextIOWrapper(stream, "utf-8-sig", newline="\n"), start=1):
                if line.strip():
                    yield Row(file, number, _check_row(file, number, json.loads(line.rstrip())))
    except (json.JSONDecodeError, RecursionError) as error:
        place = f"row {number:,}" if number else "content"
        raise DataError(f"{file}: {place}: not JSON: {error}. Write one object a line, or one array.") from error
    except _DAMAGE as error:
        raise DataError(
            f"{file}: damaged or cut off after row {number:,}: {error}. Fetch or write it again."
        ) from error


def _check_row(file: str, number: int, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f'{file}: row {number:,}: not an object but {type(value).__name__}. Write {{"column": ...}}.')
    return value


def _open(file: str) -> io.BufferedReader:
    if file.endswith(".gz"):
        import gzip

        return io.BufferedReader(gzip.open(file))
    if file.endswith(".zst"):
        return io.BufferedReader(io.BytesIO(_decompress(Path(file).read_bytes())))
    return Path(file).open("rb")


def _decompress(content: bytes) -> bytes:
    """All frames; zstandard's own reader takes a file that is cut off for a complete one."""
    parts = []
    while content:
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        parts.append(decompressor.decompress(content))
        if not decompressor.eof:
            raise EOFError("it is cut off")
        content = decompressor.unused_data
    return b"".join(parts)


def _read_parquet(file: str) -> Iterator[dict[str, Any]]:
    import datasets  # takes a second

    try:
        yield from datasets.load_dataset("parquet", data_files=file, split="train", streaming=True)
    except Exception as error:  # datasets raises its own and those of pyarrow
        raise DataError(
            f"{file}: cannot be read as parquet: {type(error).__name__}: {str(error).rstrip('.')}. Write it again."
        ) from error


def _content(item: Conversation | Preference | Prompt) -> tuple[tuple[Message, ...] | str, ...]:
    match item:
        case Conversation():
            return (item.messages,)
        case Preference():
            return item.prompt, item.chosen, item.rejected
        case Prompt():
            return (item.messages,)


def _rename(item: RecordT, new: str) -> RecordT:
    return replace(item, id=new)


def _hash_file(file: str) -> str:
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
