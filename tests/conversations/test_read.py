import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from llmtrain.config.records import RecordsConfig
from llmtrain.conversations.read import read_conversations, read_preferences, read_prompts
from llmtrain.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"instruction": "Add 2 and 2.", "input": "", "output": "4."},
    {"instruction": "Add 3 and 3.", "output": "6.", "note": ["a", 1]},
    {"instruction": "Name a color.", "input": "Not red.", "output": "Blué."},
]


def to_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def write_parquet(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"instruction": row["instruction"], "input": row.get("input"), "output": row["output"]} for row in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: path.write_bytes(b"\xef\xbb\xbf" + to_lines(ROWS) + b"\n\n"),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(to_lines(ROWS))),
    "a.jsonl.zst": lambda path: path.write_bytes(
        zstandard.compress(to_lines(ROWS[:1])) + zstandard.compress(to_lines(ROWS[1:]))
    ),
    "a.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "a.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "lines.json": lambda path: path.write_bytes(to_lines(ROWS)),
    "a.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_records(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    records = read_conversations(RecordsConfig(paths=(str(tmp_path / name),)), "mine")
    assert [item.messages[-1].content for item in records.items] == ["4.", "6.", "Blué."]
    assert records.items[2].messages[0].content == "Name a color.\n\nNot red."
    assert records.files == [(str(tmp_path / name), hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())]
    assert records.left_out == {}


def test_globs_are_read_in_order_of_name_and_repeats_are_counted(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(to_lines(ROWS[:2]))
    (tmp_path / "a.jsonl").write_bytes(to_lines(ROWS[1:]))
    paths = (str(tmp_path / "*.jsonl"), str(tmp_path / "a.jsonl"))
    records = read_conversations(RecordsConfig(paths=paths), "mine")
    assert [Path(file).name for file, _ in records.files] == ["a.jsonl", "b.jsonl"]
    assert [item.messages[-1].content for item in records.items] == ["6.", "Blué.", "4."]
    assert records.left_out == {"duplicate": 1}


def test_an_id_that_other_content_has_gives_way_to_one_of_the_content(tmp_path: Path) -> None:
    rows = [{"id": 1, **ROWS[0]}, {"id": 1, **ROWS[1]}, {"id": 2, **ROWS[0]}]
    (tmp_path / "a.jsonl").write_bytes(to_lines(rows))
    records = read_conversations(RecordsConfig(paths=(str(tmp_path / "a.jsonl"),)), "mine")
    assert records.items[0].id == "1"
    assert len(records.items[1].id) == 16
    assert records.left_out == {"duplicate": 1}


def test_each_file_may_have_its_own_format(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(to_lines(ROWS[:1]))
    (tmp_path / "b.jsonl").write_bytes(to_lines([{"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."}]))
    (tmp_path / "c.jsonl").write_bytes(to_lines([{"prompt": "Hi"}, {"prompt": "Bye"}]))
    records = read_prompts(RecordsConfig(paths=(str(tmp_path / "*.jsonl"),)), "mine")
    assert [(item.messages[-1].content, item.reference) for item in records.items] == [
        ("Add 2 and 2.", "4."),
        ("Hi", "Hello!"),
        ("Bye", None),
    ]
    assert records.left_out == {"duplicate": 1}


def test_preferences_are_read_and_those_that_are_equal_counted(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "chosen": "a", "rejected": rejected} for rejected in ("b", "a", "b", "c")]
    (tmp_path / "a.jsonl").write_bytes(to_lines(rows))
    records = read_preferences(RecordsConfig(paths=(str(tmp_path / "a.jsonl"),)), "mine")
    assert [item.rejected for item in records.items] == ["b", "c"]
    assert records.left_out == {"chosen_equals_rejected": 1, "duplicate": 1}


def test_wrong_rows_are_left_out_and_counted_if_asked_for(tmp_path: Path) -> None:
    rows = [ROWS[0], {"instruction": "Add."}, {"instruction": "Add.", "output": " "}, {"instruction": 3, "output": "x"}]
    (tmp_path / "a.jsonl").write_bytes(to_lines(rows))
    path = str(tmp_path / "a.jsonl")
    records = read_conversations(RecordsConfig(paths=(path,), bad_rows="leave_out"), "mine")
    assert len(records.items) == 1
    assert records.left_out == {"empty": 1, "missing": 1, "wrong_type": 1}
    with pytest.raises(DataError, match=r"a\.jsonl: row 2: key 'output': missing\."):
        read_conversations(RecordsConfig(paths=(path,)), "mine")
    with pytest.raises(DataError, match="holds no preferences"):
        read_preferences(RecordsConfig(paths=(path,), bad_rows="leave_out"), "mine")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt"\n', "row 2: not JSON: Expecting ':' delimiter: line 1 column 10"),
        ("a.jsonl", b"[" * 100_000, "row 1: not JSON: maximum recursion depth exceeded"),
        ("a.json", b'[{"prompt": "a"', "content: not JSON: Expecting"),
        ("a.jsonl", b'{"prompt": "a"}\n[1]\n', 'row 2: not an object but list. Write {"column": ...}.'),
        ("a.json", b"[1]", "row 1: not an object but int."),
        ("a.jsonl", b"\xff\xfe", "damaged or cut off after row 0: 'utf-8' codec can't decode"),
        ("a.jsonl.gz", gzip.compress(to_lines(ROWS))[:-9], "damaged or cut off after row "),
        ("a.jsonl.gz", b"no gzip", "damaged or cut off after row 0: Not a gzipped file"),
        ("a.jsonl.zst", zstandard.compress(to_lines(ROWS))[:-3], "damaged or cut off after row 0: "),
        ("a.parquet", b"no parquet", "cannot be read as parquet: "),
        ("a.txt", b"Hello", "not a file of records. Use .jsonl, .jsonl.gz, "),
        ("a.jsonl", b"\n", "no record is left: the files are empty. Look at the files and their format."),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_prompts(RecordsConfig(paths=(str(tmp_path / name),)), "mine")
    assert str(caught.value).startswith(f"{tmp_path / name}: {message}")


@pytest.mark.parametrize("pattern", ["missing.jsonl", "*.parquet", ""])
def test_a_path_that_matches_nothing_is_named(tmp_path: Path, pattern: str) -> None:
    path = str(tmp_path / pattern)
    with pytest.raises(DataError) as caught:
        read_prompts(RecordsConfig(paths=(path,)), "mine")
    assert str(caught.value) == f"{path}: no such file. Mend the path; a folder is named by a glob: {path}/*.jsonl."


def test_reading_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, llmtrain.conversations.read\n"
        "assert not {'torch', 'datasets', 'pyarrow', 'numpy', 'transformers'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
