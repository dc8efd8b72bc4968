"""Text that already is text: records of JSONL, JSON, parquet or the Hugging Face hub, and plain text files."""

import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

import zstandard

from data_pipelines.document import Document
from data_pipelines.sources.compressed import MAX_RECORD_BYTES, open_decompressed, read_lines, read_whole
from data_pipelines.sources.storage import open_file, refuse_remote, strip_address
from data_pipelines.sources.unit import Unit, find_files, group_files
from llmtrain.config.corpus import DocumentsSource
from llmtrain.errors import DataError

PARQUET = ".parquet"
RECORD_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", PARQUET)
_TEXT = (".txt", ".txt.gz", ".txt.zst", ".md")
_HUB = "hub:"
_ROWS, _READ_BYTES, _PEEK_BYTES = 256, 1 << 20, 100
_MAX_ARRAY_BYTES = 500_000_000
_DAMAGE = (OSError, EOFError, zlib.error, zstandard.ZstdError)


def list_units(name: str, source: DocumentsSource) -> list[Unit]:
    """One unit per file of records and per hub dataset; text files in groups.

    Raises:
        DataError: a path matches nothing, or a file is of no known kind.
    """
    hub = [path for path in source.paths if path.startswith(_HUB)]
    files = find_files(name, [path for path in source.paths if path not in hub], (*RECORD_ENDINGS, *_TEXT))
    kinds = {file.name: strip_address(file.name) for file in files}
    unknown = [file for file, kind in kinds.items() if not kind.endswith((*RECORD_ENDINGS, *_TEXT))]
    if unknown:
        raise DataError(f"corpus.sources.{name}.paths: {unknown[0]}: not {', '.join((*RECORD_ENDINGS, *_TEXT))}.")
    records = [file for file in files if kinds[file.name].endswith(RECORD_ENDINGS)]
    texts = [file for file in files if kinds[file.name].endswith(_TEXT)]
    settings = (source.licence, source.text_field, source.split, source.origin_field or "", source.licence_field or "")
    units = [Unit("documents", "", (file.name,), *settings, listed=(file,)) for file in records]
    units += [Unit("documents", "", (dataset,), *settings) for dataset in hub]
    return units + group_files("text", "", texts, source.licence)


def read_text_files(unit: Unit, dropped: Counter[str]) -> Iterator[Document]:
    """A document per file.

    Raises:
        DataError: a compressed file is damaged or cut off.
    """
    for name in unit.files:
        try:
            with open_decompressed(name) as stream:
                content = read_whole(stream)
        except (EOFError, zlib.error, zstandard.ZstdError) as error:
            raise DataError(f"{name}: damaged or cut off: {error}. Mend or leave out.") from error
        except OSError as error:
            refuse_remote(name, error)
            dropped["unreadable"] += 1
            continue
        if content is None:
            dropped["too_large"] += 1
        elif b"\0" in content:
            dropped["binary"] += 1
        else:
            label = unit.label(name)
            try:
                yield Document(content.decode("utf-8-sig"), label, unit.licence, place=label)
            except UnicodeDecodeError:
                dropped["not_utf8"] += 1


def read_records(unit: Unit, dropped: Counter[str]) -> Iterator[Document]:
    """A document per record.

    Raises:
        DataError: a file is damaged, or its records lack a field that is asked for.
    """
    name = unit.files[0]
    number, is_checked = -1, False
    for number, record in enumerate(_read(name, unit)):
        if record is None:
            dropped["too_large"] += 1
            continue
        if not is_checked:
            _check_fields(name, unit, record)
            is_checked = True
        text = record.get(unit.text_field)
        if not isinstance(text, str):
            dropped["not_text"] += 1
        elif len(text) > MAX_RECORD_BYTES:
            dropped["too_large"] += 1
        else:
            origin = record.get(unit.origin_field)
            has_origin = isinstance(origin, str | int | float) and str(origin) != ""
            licence = _to_licence(record.get(unit.licence_field)) or unit.licence
            place = f"{unit.label(name)}#{number}"
            yield Document(text, str(origin) if has_origin else place, licence, place=place)
    if number < 0:
        raise DataError(f"{name}: holds no record. Fetch it again, or leave it out of paths.")


def _read(name: str, unit: Unit) -> Iterator[dict[str, Any] | None]:
    """Records; None for one that is too large."""
    if name.startswith(_HUB):
        return _read_hub(name, unit.split)
    if strip_address(name).endswith(PARQUET):
        return read_parquet(name, [unit.text_field, unit.origin_field, unit.licence_field])
    return read_json(name)


def _check_fields(name: str, unit: Unit, record: dict[str, Any]) -> None:
    for setting in ("text_field", "origin_field", "licence_field"):
        field = getattr(unit, setting)
        if field and field not in record:
            raise DataError(
                f"{name}: the first record has no '{field}'. It has {', '.join(sorted(record)) or 'none'}: "
                f"set {setting} of the source to one of them."
            )


def _to_licence(value: object) -> str:
    """The licence of a record: a text, or a list of them."""
    if isinstance(value, list):
        return ", ".join(item for item in value if isinstance(item, str))
    return value if isinstance(value, str) else ""


def read_json(name: str) -> Iterator[dict[str, Any] | None]:
    """Objects, one a line or in one array; None for one that is too large.

    Raises:
        DataError: the file is damaged or cut off, or a line is no object.
    """
    number = 0
    try:
        with open_decompressed(name) as stream:
            beginning = cast(io.BufferedReader, stream).peek(_PEEK_BYTES)
            if ".jsonl" not in name and beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                yield from map(_to_record, _read_array(name, stream))
                return
            for line in read_lines(stream):
                number += 1
                if line is None:
                    yield None
                elif line.strip():
                    yield _to_record(json.loads(line))
    except (ValueError, RecursionError) as error:
        place = f"line {number:,}" if number else "its content"
        raise DataError(f"{name}: {place} is not a record in JSON: {error}. Mend or leave out.") from error
    except _DAMAGE as error:
        raise DataError(f"{name}: damaged or cut off after line {number:,}: {error}. Mend or leave out.") from error


def _read_array(name: str, stream: BinaryIO) -> list[object]:
    content = stream.read(_MAX_ARRAY_BYTES + 1)
    if len(content) > _MAX_ARRAY_BYTES:
        raise DataError(
            f"{name}: one JSON array of more than {_MAX_ARRAY_BYTES:,} bytes would have to be held in memory. Write it "
            "as JSONL, one object a line: jq -c '.[]'."
        )
    records: list[object] = json.loads(content)
    return records


def _to_record(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    return value


def read_parquet(name: str, fields: Sequence[str], *, is_optional: bool = False) -> Iterator[dict[str, Any]]:
    """Records with the columns that are asked for, those that are there if `is_optional`.

    Raises:
        DataError: the file is damaged or cut off.
    """
    import pyarrow.parquet  # takes a third of a second

    try:
        with (
            open_file(name, is_seekable=True) as stream,
            pyarrow.parquet.ParquetFile(stream, buffer_size=_READ_BYTES) as file,
        ):
            columns = [field for field in dict.fromkeys(fields) if field]
            if is_optional:
                columns = [field for field in columns if field in file.schema_arrow.names] or file.schema_arrow.names
            elif not set(columns) <= set(file.schema_arrow.names):
                columns = file.schema_arrow.names  # the message names them
            for batch in file.iter_batches(_ROWS, columns=columns):
                yield from batch.to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{name}: cannot be read as parquet: {type(error).__name__}: {str(error).rstrip('.')}. Mend or leave out."
        ) from error


def _read_hub(name: str, split: str) -> Iterator[dict[str, Any]]:
    import datasets  # takes a second, and may load torch

    try:
        yield from datasets.load_dataset(name.removeprefix(_HUB), split=split, streaming=True)
    except Exception as error:  # datasets raises its own and those of every format it reads
        raise DataError(
            f"{name}: cannot be read by datasets: {type(error).__name__}: {str(error).rstrip('.')}. Mend or leave out."
        ) from error
