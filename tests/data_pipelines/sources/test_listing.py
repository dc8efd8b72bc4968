import json
import os
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from data_pipelines.account import Account
from data_pipelines.document import Document
from data_pipelines.extract import READERS
from data_pipelines.sources.listing import list_units
from llmtrain.config.corpus import CodeSource, DocumentsSource, SourceConfig, WebSource, WikipediaSource


def read(source: SourceConfig, folder: Path) -> list[Document]:
    units = list_units("own", source, folder / "data")
    return [document for unit in units for document in READERS[unit.kind](unit, Account())]


def places(source: SourceConfig, folder: Path) -> list[tuple[str, str]]:
    return [(document.origin, document.place) for document in read(source, folder)]


def test_equal_files_of_two_trees_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "src").mkdir(parents=True)
        (tmp_path / name / "src" / "m.py").write_text(f"x = '{name}'\n")
    monkeypatch.chdir(tmp_path)
    expected = [("src/m.py", "one/src/m.py"), ("src/m.py", "two/src/m.py")]
    assert places(CodeSource(kind="code", paths=["one/src", "two/src"]), tmp_path) == expected
    assert places(CodeSource(kind="code", paths=["*/src"]), tmp_path) == expected
    assert places(CodeSource(kind="code", paths=["one/src/m.py"]), tmp_path) == [("m.py/m.py", "one/src/m.py")]
    absolute = places(CodeSource(kind="code", paths=[f"{tmp_path}/one"]), tmp_path)
    assert absolute == [("one/src/m.py", f"{tmp_path}/one/src/m.py")]
    (document,) = read(CodeSource(kind="code", paths=["stdlib:"], exclude=["*/*", "[!a]*", "a[!r]*"]), tmp_path)
    assert (document.origin.rpartition("/")[2], document.place) == ("argparse.py", "stdlib:argparse.py")


def test_members_and_records_of_code_name_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    with zipfile.ZipFile("in/a.zip", "w") as archive:
        archive.writestr("pkg/m.py", "x = 1\n")
    pyarrow.parquet.write_table(pa.table({"content": ["x = 1\n", "y = 2\n"], "path": ["m.py", "m.py"]}), "in/b.parquet")
    assert places(CodeSource(kind="code", paths=["in/*"]), tmp_path) == [
        ("a.zip/pkg/m.py", "in/a.zip/pkg/m.py"),
        ("m.py", "in/b.parquet#0"),
        ("m.py", "in/b.parquet#1"),
    ]


def test_pages_and_articles_name_their_archive_and_record(archive: Path, small_dump: Path, tmp_path: Path) -> None:
    os.link(archive, tmp_path / "crawl.warc.gz")
    found = places(WebSource(kind="web", paths=[f"{tmp_path}/*.warc.gz"]), tmp_path)
    assert all(origin.startswith("http://") for origin, _ in found)
    assert len({place for _, place in found}) == len(found) > 5
    assert all(place.startswith(f"{tmp_path}/crawl.warc.gz#") for _, place in found)
    origin, place = places(WikipediaSource(kind="wikipedia", paths=[str(small_dump)]), tmp_path)[0]
    assert place == f"{small_dump.parent}/{origin}"


def test_records_with_an_address_name_their_file_too_and_numbers_are_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    records = [{"text": "one", "url": "https://a.org"}, {"text": "two", "url": 17}, {"text": "three", "url": None}]
    Path("a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    Path("b.txt").write_text("four")
    assert places(DocumentsSource(kind="documents", paths=["*.jsonl", "b.txt"], origin_field="url"), tmp_path) == [
        ("https://a.org", "a.jsonl#0"),
        ("17", "a.jsonl#1"),
        ("a.jsonl#2", "a.jsonl#2"),
        ("b.txt", "b.txt"),
    ]
