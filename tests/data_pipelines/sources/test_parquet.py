import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.sources import parquet
from data_pipelines.sources.parquet import read_parquet

COLUMNS: dict[str, Any] = {
    "text": ["one", "two" * 50, None, "four", ""],
    "url": ["a", "b", "c", "d" * 200, None],
    "rights": [["MIT"], None, [], ["ISC", "MIT"], ["x"]],
    "bytes": [b"1", b"2", b"3", b"4", b"5"],
    "number": [1, 2, 3, 4, 5],
}


@pytest.mark.parametrize("is_dictionary", [False, True])
@pytest.mark.parametrize("group", [1, 2, 100])
def test_rows_are_those_of_the_table_but_too_large_ones(
    tmp_path: Path, is_dictionary: bool, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table(COLUMNS)
    if is_dictionary:
        table = table.set_column(0, "text", table["text"].dictionary_encode())
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group)
    name, rows = str(tmp_path / "a.parquet"), pa.table(COLUMNS).to_pylist()
    assert list(read_parquet(name, list(COLUMNS))) == rows
    assert list(read_parquet(name, ["number", "text", "number", ""])) == [
        {"number": row["number"], "text": row["text"]} for row in rows
    ]
    assert list(read_parquet(name, ["url", "gone"], is_optional=True)) == [{"url": row["url"]} for row in rows]
    monkeypatch.setattr(parquet, "MAX_RECORD_BYTES", 100)
    assert list(read_parquet(name, list(COLUMNS))) == [rows[0], None, rows[2], None, rows[4]]
    assert list(read_parquet(name, ["text"])) == [
        row and {"text": row["text"]} for row in [rows[0], None, rows[2], rows[3], rows[4]]
    ]


READ = """
import json, resource, sys
from data_pipelines.sources.parquet import read_parquet
list(read_parquet(sys.argv[1], ["number"]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = [record is None for record in read_parquet(sys.argv[1], ["text"])]
print(json.dumps([len(count), sum(count), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


def test_a_small_file_that_holds_gigabytes_takes_bounded_memory(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 60 + [1]), pa.array(["x" * 50_000_000, "y" * 70_000_000]))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts, "number": [0] * 61}), path, store_schema=False, compression="zstd")
    assert path.stat().st_size < 50_000
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, check=True, text=True)
    count, too_large, kilobytes = json.loads(done.stdout)
    assert (count, too_large) == (61, 1)
    assert kilobytes < 700_000  # all of them are 3 GB
