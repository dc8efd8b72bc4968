import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_pipelines.account import Account
from data_pipelines.document import Document
from data_pipelines.extract import READERS
from data_pipelines.sources.code import list_units
from llmtrain.config.corpus import CodeSource
from llmtrain.errors import DataError

# As in bigcode/the-stack-dedup, with some of its columns.
STACK = [
    {
        "content": "print('a')\n",
        "max_stars_repo_path": "src/a.py",
        "max_stars_repo_name": "me/project",
        "max_stars_repo_licenses": ["MIT", "Apache-2.0"],
        "lang": "Python",
        "ext": "py",
        "size": 11,
    },
    {
        "content": "package main\n",
        "max_stars_repo_path": "vendor/x/main.go",
        "max_stars_repo_name": "me/project",
        "max_stars_repo_licenses": ["MIT"],
        "lang": "Go",
        "ext": "go",
        "size": 13,
    },
    {
        "content": "package main\n\nfunc main() {}\n",
        "max_stars_repo_path": "cmd/main.go",
        "max_stars_repo_name": "me/project",
        "max_stars_repo_licenses": ["GPL-3.0"],
        "lang": "Go",
        "ext": "go",
        "size": 28,
    },
]


def read(path: Path, **settings: Any) -> tuple[list[Document], Counter[str]]:
    account = Account()
    units = list_units("code", CodeSource.model_validate({"kind": "code", "paths": [str(path)], **settings}))
    return [document for unit in units for document in READERS[unit.kind](unit, account)], account.dropped


@pytest.mark.parametrize("name", ["stack.parquet", "stack.jsonl", "stack.jsonl.zst", "stack.json"])
def test_records_of_the_stack_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    lines = "".join(json.dumps(record) + "\n" for record in STACK).encode()
    match name.rpartition(".")[2]:
        case "parquet":
            pq.write_table(pa.Table.from_pylist(STACK), path)
        case "zst":
            path.write_bytes(zstandard.compress(lines))
        case "json":
            path.write_text(json.dumps(STACK))
        case _:
            path.write_bytes(lines)
    documents, dropped = read(path, languages=["python", "go"])
    assert documents == [
        Document("print('a')\n", "me/project/src/a.py", "MIT AND Apache-2.0", "python"),
        Document("package main\n\nfunc main() {}\n", "me/project/cmd/main.go", "GPL-3.0", "go"),
    ]
    assert dropped == {"vendored": 1}
    assert read(path, extensions=[".go"], licences=["MIT"], keep_vendored=True)[1] == {
        "licence": 1,
        "other_language": 1,
    }


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_records_without_path_are_told_by_their_language_or_ending(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"content": "int x;\n", "lang": "C++", "license": "MIT"},
        {"content": "x = 1\n", "ext": "py"},
        {"content": "y = 1\n"},
    )
    documents, dropped = read(path, languages=["cpp", "python"], licence="configured")
    assert [(document.language, document.licence) for document in documents] == [
        ("cpp", "MIT"),
        ("python", "configured"),
    ]
    assert documents[0].origin == "a.jsonl#0"
    assert dropped == {"other_language": 1}
    documents, dropped = read(path)
    assert [document.text for document in documents] == ["x = 1\n", "y = 1\n"]
    assert dropped == {"other_language": 1}


def test_bad_records_are_counted(tmp_path: Path) -> None:
    good = {"content": "x = 1\n", "path": "a.py"}
    broken = [{"content": None, "path": "b.py"}, {"path": "c.py"}, {"content": "\ud800", "path": "d.py"}]
    odd = [{"content": "a\0b", "path": "e.py"}, {"content": "y = 1\n", "path": 7, "licenses": [1]}]
    documents, dropped = read(write(tmp_path / "a.jsonl", good, *broken, *odd))
    assert [document.text for document in documents] == ["x = 1\n", "y = 1\n"]
    assert dropped == {"not_text": 2, "not_utf8": 1, "binary": 1}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"body": "x"}\n', "the first record has none of content, text, code. It has body: rename"),
        ("a.jsonl", b'{"content": "x"}\n{"conte', "line 2 is not a record in JSON"),
        ("a.parquet", b"PAR1 not", "cannot be read as parquet"),
    ],
)
def test_files_that_hold_no_records_of_code_are_refused(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        read(tmp_path / name)
    assert told


def test_a_file_without_a_record_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert read(tmp_path / "a.jsonl") == ([], {"empty_file": 1})


def test_a_file_whose_ending_is_asked_for_is_code_and_no_records(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"key": 1}\n')
    documents, dropped = read(tmp_path / "a.json", extensions=[".json"])
    assert [document.text for document in documents] == ['{"key": 1}\n']
    assert not dropped
