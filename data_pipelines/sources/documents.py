"""Text that already is text: records of JSONL, JSON, parquet or the Hugging Face hub, and plain text files."""

import io
import json
import zlib
from collections.abc import Iterator
from typing import Any, cast

import zstandard

from data_pipelines.account import Account
from data_pipelines.document import Document
from data_pipelines.sources.compressed import MAX_RECORD_BYTES, open_decompressed, read_lines, read_whole
from data_pipelines.sources.json_array import read_array
from data_pipelines.sources.parquet import PARQUET, read_parquet
from data_pipelines.sources.storage import refuse_remote, strip_address
from data_pipelines.sources.unit import Unit, find_files, group_files, refuse_none
from llmtrain.config.corpus import DocumentsSource
from llmtrain.errors import DataError

RECORD_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", PARQUET)
_TEXT = (".txt", ".txt.gz", ".txt.zst", ".md")
_HUB = "hub:"
_PEEK_BYTES = 100
_DAMAGE = (OSError, EOFError, zlib.error, zstandard.ZstdError)


def list_units(name: str, source: DocumentsSource) -> list[Unit]:
    """One unit per file of records and per hub dataset; text files in groups.

    Raises:
        DataError: a path matches nothing, or a file is of no known kind.
    """
    hub = [path for path in source.paths if path.startswith(_HUB)]
    files = find_files(name, [path for path in source.paths if path not in hub], (*RECORD_ENDINGS, *_TEXT))
    kinds = {file.name: strip_address(file.name).lower() for file in files}
    unknown = [file for file, kind in kinds.items() if not kind.endswith((*RECORD_ENDINGS, *_TEXT))]
    if unknown:
        raise DataError(f"corpus.sources.{name}.paths: {unknown[0]}: not {', '.join((*RECORD_ENDINGS, *_TEXT))}.")
    records = [file for file in files if kinds[file.name].endswith(RECORD_ENDINGS)]
    texts = [file for file in files if kinds[file.name].endswith(_TEXT)]
    settings = (source.licence, source.text_field, source.split, source.origin_field or "", source.licence_field or "")
    units = [Unit("documents", "", (file.name,), *settings, listed=(file,)) for file in records]
    units += [Unit("documents", "", (dataset,), *settings) for dataset in hub]
    units += group_files("text", "", texts, source.licence)
    return refuse_none(name, units, f"those below a folder end in {', '.join((*RECORD_ENDINGS, *_TEXT))}")


def read_text_files(unit: Unit, account: Account) -> Iterator[Document]:
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
            account.drop("unreadable", name)
            continue
        if content is None:
            account.drop("too_large", name)
        elif b"\0" in content:
            account.drop("binary", name)
        else:
            label = unit.label(name)
            try:
                yield Document(content.decode("utf-8-sig"), label, unit.licence, place=label)
            except UnicodeDecodeError:
                account.drop("not_utf8", name)


def read_records(unit: Unit, account: Account) -> Iterator[Document]:
    """A document per record.

    Raises:
        DataError: a file is damaged, or its records lack a field that is asked for.
    """
    name = unit.files[0]
    number, is_checked = -1, False
    for number, record in enumerate(_read(name, unit)):
        if record is None:
            account.drop("too_large", f"{name}#{number}")
            continue
        if not is_checked:
            _check_fields(name, unit, record)
            is_checked = True
        text = record.get(unit.text_field)
        if not isinstance(text, str):
            account.drop("not_text", f"{name}#{number}")
        elif len(text) > MAX_RECORD_BYTES:
            account.drop("too_large", f"{name}#{number}")
        else:
            origin = record.get(unit.origin_field)
            has_origin = isinstance(origin, str | int | float) and str(origin) != ""
            licence = _to_licence(record.get(unit.licence_field)) or unit.licence
            place = f"{unit.label(name)}#{number}"
            yield Document(text, str(origin) if has_origin else place, licence, place=place)
    if number < 0:
        account.drop("empty_file", name)  # parts without a record are ordinary


def _read(name: str, unit: Unit) -> Iterator[dict[str, Any] | None]:
    """Records; None for one that is too large."""
    if name.startswith(_HUB):
        return _read_hub(name, unit.split)
    if strip_address(name).lower().endswith(PARQUET):
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
            if ".jsonl" not in name.lower() and beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                yield from map(_to_record, read_array(stream))
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


def _to_record(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    return value


def _read_hub(name: str, split: str) -> Iterator[dict[str, Any]]:
    import datasets  # takes a second, and may load torch

    try:
        yield from datasets.load_dataset(name.removeprefix(_HUB), split=split, streaming=True)
    except Exception as error:  # datasets raises its own and those of every format it reads
        raise DataError(
            f"{name}: cannot be read by datasets: {type(error).__name__}: {str(error).rstrip('.')}. Mend or leave out."
        ) from error
