import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
import zstandard

from data_pipelines.account import Account
from data_pipelines.document import Document, read_documents
from data_pipelines.extract import READERS, extract_unit
from data_pipelines.sources import compressed, parquet
from data_pipelines.sources import documents as documents_module
from data_pipelines.sources.documents import list_units, read_records, read_text_files
from llmtrain.config.corpus import DocumentsSource
from llmtrain.config.deduplicate import DeduplicateConfig
from llmtrain.errors import DataError

TEXTS = ["one\nwith a second line", "deux é", "three \u2028 and more"]
JSONL = "".join(json.dumps({"text": text, "id": number}) + "\n" for number, text in enumerate(TEXTS)).encode()


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def read(path: Path, content: bytes | None = None, **changes: Any) -> tuple[list[Document], Counter[str]]:
    if content is not None:
        path.write_bytes(content)
    source = DocumentsSource(kind="documents", paths=[str(path)], licence="CC0-1.0", **changes)
    account = Account()
    return [
        document for unit in list_units("own", source) for document in READERS[unit.kind](unit, account)
    ], account.dropped


def write_parquet(path: Path, **columns: list[Any]) -> bytes:
    datasets.Dataset.from_dict(columns).to_parquet(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", JSONL),
        ("a[1]?.jsonl", JSONL),
        ("a.jsonl.gz", gzip.compress(JSONL)),
        ("a.jsonl.zst", zstandard.compress(JSONL)),
        ("many.jsonl.zst", zstandard.compress(JSONL[:30]) + zstandard.compress(JSONL[30:])),
        ("crlf.jsonl", JSONL.replace(b"\n", b"\r\n") + b"\r\n"),
        ("bom.jsonl", b"\xef\xbb\xbf" + JSONL),
        ("CAPITALS.JSONL.GZ", gzip.compress(JSONL)),
        ("array.json", b"[" + b",".join(JSONL.splitlines()) + b"]"),
        ("lines.json.gz", gzip.compress(JSONL)),
    ],
)
def test_records_in_json_of_every_ending_give_the_same(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    documents, dropped = read(tmp_path)
    assert documents == [Document(text, f"{path}#{number}", "CC0-1.0") for number, text in enumerate(TEXTS)]
    assert not dropped


def test_parquet_and_another_text_field_are_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a[1].parquet", body=[*TEXTS, None], n=[1, 2, 3, 4])
    documents, dropped = read(tmp_path, text_field="body")
    assert [document.text for document in documents] == TEXTS
    assert dropped == {"not_text": 1}


def test_a_hub_dataset_is_one_unit_of_its_split() -> None:
    source = DocumentsSource(kind="documents", paths=["hub:some/name"], split="test", licence="MIT")
    assert [(unit.files, unit.split, unit.licence) for unit in list_units("own", source)] == [
        (("hub:some/name",), "test", "MIT")
    ]


def test_a_hub_dataset_that_cannot_be_reached_is_refused_by_name() -> None:
    source = DocumentsSource(kind="documents", paths=["hub:no/such name"])
    with pytest.raises(DataError, match=r"hub:no/such name: cannot be read by datasets: .* Mend or leave out"):
        list(read_records(list_units("own", source)[0], Account()))


def test_records_may_differ_in_all_but_the_text(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [{"text": "x" * 1000, "meta": {"a": 1}}] * 11_000  # more than datasets looks at
    records += [{"text": "string", "meta": "b"}, {"meta": None, "other": [1], "text": "more"}]
    records += [{"text": "2024-01-02"}, {"text": "lone \ud800 surrogate"}]
    documents, dropped = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, records)).encode())
    assert [document.text for document in documents] == [record["text"] for record in records]
    assert not dropped


def test_records_without_text_are_counted(tmp_path: Path) -> None:
    content = JSONL + b'{"text": null}\n{"text": 5}\n{"body": "x"}\n\n{"text": ["a"]}\n' + JSONL
    documents, dropped = read(tmp_path / "a.jsonl", content)
    assert [document.text for document in documents] == TEXTS * 2
    assert dropped == {"not_text": 4}


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_missing_text_field_names_those_there_are(tmp_path: Path, name: str) -> None:
    content = write_parquet(tmp_path / name, body=["a"], title=["b"])
    content = content if name.endswith("parquet") else b'{"title": "b", "body": "a"}\n'
    with pytest.raises(DataError) as raised:
        read(tmp_path / name, content)
    assert str(raised.value) == (
        f"{tmp_path / name}: the first record has no 'text'. It has body, title: set text_field of the source to one "
        "of them."
    )


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("broken.jsonl", JSONL + b'{"text": "x\n' + JSONL, r"line 4 is not a record in JSON: .*Mend or leave out"),
        ("cut.jsonl", JSONL[:-20], "line 3 is not a record in JSON: Unterminated string"),
        ("list.jsonl", b'["a"]\n', "line 1 is not a record in JSON: it is not an object"),
        ("deep.jsonl", b"[" * 100_000, "line 1 is not a record in JSON: maximum recursion depth"),
        ("latin.jsonl", JSONL + b'{"text": "\xe9t\xe9"}\n', "line 4 is not a record in JSON: 'utf-8' codec"),
        ("binary.jsonl", b"\x7fELF\0\xff" * 50, "line 1 is not a record in JSON"),
        (
            "cut.jsonl.gz",
            gzip.compress(JSONL * 500)[:-9],
            r"damaged or cut off after line 1,\d+: Compressed file ended",
        ),
        (
            "cut.jsonl.zst",
            zstandard.compress(JSONL * 5000)[:-9],
            r"damaged or cut off after line [\d,]+: it is cut off",
        ),
        ("bad.jsonl.gz", b"not gzip at all", "line 1 is not a record in JSON"),
        ("bad.jsonl.zst", b"not zstd at all", "line 1 is not a record in JSON"),
        ("bad.json", b"[{]", "its content is not a record in JSON: Expecting"),
        ("garbage.parquet", b"PAR1" + b"\xff" * 500, "cannot be read as parquet: ArrowInvalid: Parquet magic bytes"),
        ("empty.parquet", b"", "cannot be read as parquet: ArrowInvalid: Parquet file size is 0 bytes"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told) as raised:
        read(tmp_path / name, content)
    assert str(raised.value).startswith(f"{tmp_path / name}: ")


def test_a_file_without_a_record_is_counted(tmp_path: Path) -> None:
    contents = {
        "a.jsonl": b"",
        "b.jsonl.gz": gzip.compress(b""),
        "c.jsonl.zst": b"",
        "d.jsonl": b"\n\n",
        "e.json": b"[]",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    datasets.Dataset.from_dict({"text": ["x"]}).select([]).to_parquet(tmp_path / "f.parquet")
    assert read(tmp_path) == ([], {"empty_file": 6})


def test_a_parquet_file_cut_off_is_refused(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "a.parquet", text=TEXTS * 1000)
    for cut in (whole[:-20], whole[: len(whole) // 2], whole[:20] + whole[60:]):
        with pytest.raises(DataError, match=r"a\.parquet: cannot be read as parquet: "):
            read(tmp_path / "a.parquet", cut)


def test_files_of_another_kind_are_refused_with_those_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nx\n")
    with pytest.raises(DataError) as raised:
        read(tmp_path / "a.csv")
    assert str(raised.value) == (
        f"corpus.sources.own.paths: {tmp_path / 'a.csv'}: not .jsonl, .jsonl.gz, .jsonl.zst, .json, .json.gz, "
        ".parquet, .txt, .txt.gz, .txt.zst, .md."
    )


def test_a_glob_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus\.sources\.own\.paths: '.*\*\.jsonl' matches no file"):
        read(tmp_path / "*.jsonl")


def test_origin_and_licence_of_records_are_kept(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"text": "a", "url": "https://a.org", "rights": "CC-BY-4.0"},
        {"text": "b", "url": "", "rights": ["MIT", 5, "Apache-2.0"]},
        {"text": "c", "url": None, "rights": None},
        {"text": "d"},
    ]
    content = "\n".join(map(json.dumps, records)).encode()
    documents, _ = read(tmp_path / "a.jsonl", content, origin_field="url", licence_field="rights")
    assert [(document.origin, document.licence) for document in documents] == [
        ("https://a.org", "CC-BY-4.0"),
        (f"{tmp_path}/a.jsonl#1", "MIT, Apache-2.0"),
        (f"{tmp_path}/a.jsonl#2", "CC0-1.0"),
        (f"{tmp_path}/a.jsonl#3", "CC0-1.0"),
    ]
    write_parquet(tmp_path / "a.parquet", text=["a"], url=["https://a.org"], rights=["MIT"], other=[1])
    documents, _ = read(tmp_path / "a.parquet", origin_field="url", licence_field="rights")
    assert documents == [Document("a", "https://a.org", "MIT")]


def test_a_missing_field_of_origins_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"has no 'address'\. It has id, text: set origin_field of the source to one of"
    ):
        read(tmp_path / "a.jsonl", JSONL, origin_field="address")
    write_parquet(tmp_path / "a.parquet", text=["a"], url=["b"])
    with pytest.raises(
        DataError, match=r"has no 'rights'\. It has text, url: set licence_field of the source to one of"
    ):
        read(tmp_path / "a.parquet", licence_field="rights")


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    files = {
        "a.txt": b"\xef\xbb\xbfone\n\ntwo",
        "b.txt.gz": gzip.compress(b"three"),
        "c.txt.zst": zstandard.compress(b"four"),
        "d.md": b"# five",
        "e.txt": b"caf\xe9",
        "f.txt": b"a\0b",
        "g.rst": b"not asked for",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    documents, dropped = read(tmp_path)
    assert [document.text for document in documents] == ["one\n\ntwo", "three", "four", "# five"]
    assert documents[0].origin == str(tmp_path / "a.txt")
    assert dropped == {"not_utf8": 1, "binary": 1}


def test_a_damaged_text_file_is_refused_and_one_that_is_gone_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"x" * 1000)[:-9])
    with pytest.raises(DataError, match=r"a\.txt\.gz: damaged or cut off: Compressed file ended"):
        read(tmp_path)
    units = list_units("own", DocumentsSource(kind="documents", paths=[str(tmp_path)]))
    (tmp_path / "a.txt.gz").unlink()
    account = Account()
    assert list(read_text_files(units[0], account)) == []
    assert account.dropped == {"unreadable": 1}


def test_records_and_texts_that_are_too_large_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "MAX_RECORD_BYTES", 100)
    monkeypatch.setattr(documents_module, "MAX_RECORD_BYTES", 100)
    monkeypatch.setattr(parquet, "MAX_RECORD_BYTES", 100)
    long = json.dumps({"text": "x" * 200}).encode() + b"\n"
    for name, content in {
        "a.jsonl": long + JSONL + long,
        "b.jsonl.zst": zstandard.compress(long + JSONL + long),
    }.items():
        documents, dropped = read(tmp_path / name, content)
        assert [document.text for document in documents] == TEXTS
        assert dropped == {"too_large": 2}
    (tmp_path / "b.txt").write_bytes(b"x" * 101)
    documents, dropped = read(tmp_path / "b.txt")
    assert (documents, dropped) == ([], {"too_large": 1})
    write_parquet(tmp_path / "a.parquet", text=["x" * 101, "y"])
    documents, dropped = read(tmp_path / "a.parquet")
    assert ([document.text for document in documents], dropped) == (["y"], {"too_large": 1})


def test_names_that_lead_elsewhere_write_nothing_outside_of_the_part(tmp_path: Path) -> None:
    records = [{"text": f"text {name}", "url": name} for name in ("../../../up.txt", "/etc/own", "a\0b", "..")]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    source = DocumentsSource(kind="documents", paths=[str(tmp_path / "in")], origin_field="url")
    part = tmp_path / "out" / "part.jsonl.zst"
    account = extract_unit(list_units("own", source)[0], [], part, tmp_path / "columns", DeduplicateConfig())
    assert account.documents == 4
    assert [document.origin for document in read_documents(part)] == [record["url"] for record in records]
    assert sorted(path.name for path in tmp_path.rglob("*") if not path.name.startswith("columns.")) == [
        "a.jsonl",
        "in",
        "out",
        "part.jsonl.json",
        "part.jsonl.zst",
    ]
