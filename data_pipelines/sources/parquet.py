"""Records of parquet files in bounded memory: a text that repeats is stored once, so a small file may hold a lot."""

from collections.abc import Iterator, Sequence
from typing import Any

from data_pipelines.sources.compressed import MAX_RECORD_BYTES
from data_pipelines.sources.storage import open_file
from llmtrain.errors import DataError

PARQUET = ".parquet"
_MAX_ROWS, _READ_BYTES = 256, 1 << 20
# Each row of a batch may hold the longest text of its group, which is no longer than what the group holds.
_BATCH_BYTES = 1_000_000_000
_BOMB_RATIO, _BOMB_BATCH_BYTES = 50, 64_000_000
"""Text reaches a ratio of 3 to 10."""


def read_parquet(name: str, fields: Sequence[str], *, is_optional: bool = False) -> Iterator[dict[str, Any] | None]:
    """Records with the columns that are asked for, those that are there if `is_optional`; None for one too large.

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
            for group in range(file.num_row_groups):
                rows = _choose_rows(file.metadata.row_group(group), columns)
                for batch in file.iter_batches(rows, row_groups=[group], columns=columns):
                    yield from _read_batch(batch)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{name}: cannot be read as parquet: {type(error).__name__}: {str(error).rstrip('.')}. Mend or leave out."
        ) from error


def _choose_rows(group: Any, columns: Sequence[str]) -> int:
    """Rows of a batch of this group of rows."""
    chunks = [group.column(number) for number in range(group.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema.startswith(tuple(columns))]
    size = sum(chunk.total_uncompressed_size for chunk in chunks)
    is_bomb = size > _BOMB_RATIO * sum(chunk.total_compressed_size for chunk in chunks)
    limit = _BOMB_BATCH_BYTES if is_bomb else _BATCH_BYTES
    return int(min(_MAX_ROWS, max(1, limit // max(size, 1))))


def _read_batch(batch: Any) -> Iterator[dict[str, Any] | None]:
    """Rows of a batch; a row becomes Python's once the lengths of its texts are known."""
    names, columns = batch.schema.names, batch.columns
    too_large = {number for column in columns for number in _find_too_large(column)}
    for number in range(batch.num_rows):
        if number in too_large:
            yield None
        else:
            yield {name: column[number].as_py() for name, column in zip(names, columns, strict=True)}


def _find_too_large(column: Any) -> list[int]:
    from pyarrow import compute, types

    is_dictionary = types.is_dictionary(column.type)
    texts = column.dictionary if is_dictionary else column
    is_text = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    if not any(question(texts.type) for question in is_text):
        return []
    lengths = compute.binary_length(texts)
    if (compute.max(lengths).as_py() or 0) <= MAX_RECORD_BYTES:
        return []
    lengths = lengths.take(column.indices) if is_dictionary else lengths
    return [number for number, length in enumerate(lengths.to_pylist()) if (length or 0) > MAX_RECORD_BYTES]
