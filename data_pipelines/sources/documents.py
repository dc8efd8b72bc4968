"""Text that already is in records: JSONL (plain, gz, zst), parquet, or a dataset of the Hugging Face hub."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.document import Document
from data_pipelines.sources.unit import Unit, expand_paths, list_files
from llmtrain.config.corpus import DocumentsSource
from llmtrain.errors import DataError

_JSON = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz")
_HUB = "hub:"


def list_units(name: str, source: DocumentsSource) -> list[Unit]:
    """One unit per file, and one per hub dataset.

    Raises:
        DataError: a path matches nothing, or a file is of no known kind.
    """
    hub = [path for path in source.paths if path.startswith(_HUB)]
    files = list_files(expand_paths(name, (p for p in source.paths if p not in hub)), (*_JSON, ".parquet"))
    unknown = [str(file) for file in files if not file.name.endswith((*_JSON, ".parquet"))]
    if unknown:
        raise DataError(f"corpus.sources.{name}.paths: {unknown[0]}: not {', '.join((*_JSON, '.parquet'))}.")
    return [
        Unit("documents", "", (item,), source.licence, source.text_field, source.split)
        for item in (*map(str, files), *hub)
    ]


def read_records(unit: Unit, dropped: Counter[str]) -> Iterator[Document]:
    """A document per record.

    Raises:
        DataError: a file is damaged, or its records lack the text field.
    """
    import datasets  # takes a second, and may load torch

    name = unit.files[0]
    try:
        if name.startswith(_HUB):
            records = datasets.load_dataset(name.removeprefix(_HUB), split=unit.split, streaming=True)
        else:
            builder = "parquet" if Path(name).suffix == ".parquet" else "json"
            records = datasets.load_dataset(builder, data_files=[name], split="train", streaming=True)
        for number, record in enumerate(records):
            if unit.text_field not in record:
                raise DataError(
                    f"{name}: record {number} has no '{unit.text_field}'. It has {', '.join(sorted(record))}: set "
                    "text_field of the source to one of them."
                )
            text = record[unit.text_field]
            if not isinstance(text, str):
                dropped["not_text"] += 1
                continue
            yield Document(text, f"{name}#{number}", unit.licence)
    except DataError:
        raise
    except Exception as error:  # datasets raises its own and those of every format it reads
        raise DataError(
            f"{name}: cannot be read by datasets: {type(error).__name__}: {error}. Mend or leave out."
        ) from error
