"""Text that already is in records: JSONL (plain, gz, zst), parquet, or a dataset of the Hugging Face hub."""

import glob
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from data_pipelines.document import Document, read_zstd_lines
from data_pipelines.sources.unit import Unit, expand_paths, list_files
from llmtrain.config.corpus import DocumentsSource
from llmtrain.errors import DataError

_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_PARQUET = ".parquet"
_KNOWN = (*_LINES, ".json", ".json.gz", _PARQUET)
_HUB = "hub:"


def list_units(name: str, source: DocumentsSource) -> list[Unit]:
    """One unit per file, and one per hub dataset.

    Raises:
        DataError: a path matches nothing, or a file is of no known kind.
    """
    hub = [path for path in source.paths if path.startswith(_HUB)]
    files = list_files(expand_paths(name, (p for p in source.paths if p not in hub)), _KNOWN)
    unknown = [str(file) for file in files if not file.name.endswith(_KNOWN)]
    if unknown:
        raise DataError(f"corpus.sources.{name}.paths: {unknown[0]}: not {', '.join(_KNOWN)}.")
    return [
        Unit("documents", "", (item,), source.licence, source.text_field, source.split)
        for item in (*map(str, files), *hub)
    ]


def read_records(unit: Unit, dropped: Counter[str]) -> Iterator[Document]:
    """A document per record.

    Raises:
        DataError: a file is damaged, or its records lack the text field.
    """
    name = unit.files[0]
    records = _read_lines(name) if name.endswith(_LINES) else _read_datasets(name, unit.split)
    number = -1
    for number, record in enumerate(records):
        if unit.text_field not in record and number == 0:
            raise DataError(
                f"{name}: the first record has no '{unit.text_field}'. It has {', '.join(sorted(record)) or 'none'}: "
                "set text_field of the source to one of them."
            )
        text = record.get(unit.text_field)
        if isinstance(text, str):
            yield Document(text, f"{name}#{number}", unit.licence)
        else:
            dropped["not_text"] += 1
    if number < 0:
        raise DataError(f"{name}: holds no record. Fetch it again, or leave it out of paths.")


def _read_lines(name: str) -> Iterator[dict[str, Any]]:
    """Records may differ in all but the text; datasets would give all of a file the columns of its beginning."""
    number = 0
    try:
        for line in _open_lines(Path(name)):
            number += 1
            if line.strip():
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("it is not an object")
                yield record
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: line {number:,} is not a record in JSON: {error}. Mend or leave out.") from error
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(f"{name}: damaged or cut off after line {number:,}: {error}. Mend or leave out.") from error


def _open_lines(path: Path) -> Iterator[bytes]:
    if path.suffix == ".zst":
        yield from read_zstd_lines(path)
        return
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        yield from file


def _read_datasets(name: str, split: str) -> Iterator[dict[str, Any]]:
    import datasets  # takes a second, and may load torch

    try:
        if name.startswith(_HUB):
            yield from datasets.load_dataset(name.removeprefix(_HUB), split=split, streaming=True)
        else:
            builder = "parquet" if name.endswith(_PARQUET) else "json"
            files = [glob.escape(name)]
            yield from datasets.load_dataset(builder, data_files=files, split="train", streaming=True)
    except Exception as error:  # datasets raises its own and those of every format it reads
        raise DataError(
            f"{name}: cannot be read by datasets: {type(error).__name__}: {str(error).rstrip('.')}. Mend or leave out."
        ) from error
