import functools
import gzip
import http.server
import json
import logging
import pickle
import threading
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from moto.server import ThreadedMotoServer

from data_pipelines.account import Account
from data_pipelines.document import Document, read_documents
from data_pipelines.extract import READERS, extract_unit
from data_pipelines.sources import documents, storage, web
from data_pipelines.sources.storage import find_stored, is_address, open_file, redact
from data_pipelines.sources.unit import Unit, find_files, read_file
from data_pipelines.worker_process import end_with_parent
from llmtrain.config.corpus import DocumentsSource, WebSource
from llmtrain.config.deduplicate import DeduplicateConfig
from llmtrain.errors import DataError

RECORDS = [{"text": f"Text {number}.", "url": f"https://a.org/{number}"} for number in range(3)]
JSONL = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, refuses `secret/`, and breaks off its first answer to `breaks/`."""

    broken = 0

    def do_GET(self) -> None:
        if self.path.startswith("/secret"):
            self.send_error(403)
        elif self.path.startswith("/breaks") and type(self).broken < 1:
            type(self).broken += 1
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        if self.path.startswith("/secret"):
            self.send_error(403)
        else:
            super().do_HEAD()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Stay silent."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """Address of a web server of the temporary folder."""
    for folder in ("secret", "breaks", "crawl"):
        (tmp_path / folder).mkdir()
    _Server.broken = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Server, directory=str(tmp_path))) as own:
        thread = threading.Thread(target=own.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{own.server_port}"
        own.shutdown()
        thread.join()


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    """An empty storage in memory."""
    MemoryFileSystem.store.clear()
    yield fsspec.filesystem("memory")
    MemoryFileSystem.store.clear()


def read(units: list[Unit]) -> tuple[list[Document], Counter[str]]:
    account = Account()
    # Units travel to workers.
    own: list[Unit] = pickle.loads(pickle.dumps(units))  # noqa: S301
    return [document for unit in own for document in READERS[unit.kind](unit, account)], account.dropped


def test_addresses_are_told_from_paths() -> None:
    assert [is_address(name) for name in ("s3://b/x", "zip://a.txt::/b.zip", "https://a.org")] == [True] * 3
    assert [is_address(name) for name in ("a/b.txt", "/a", "file:///a", "hub:a/b", "C:/x")] == [False] * 5


def test_a_page_that_lists_files_and_single_addresses_are_read_over_http(site: str, tmp_path: Path) -> None:
    (tmp_path / "crawl" / "a.jsonl").write_bytes(JSONL)
    (tmp_path / "crawl" / "b.jsonl.gz").write_bytes(gzip.compress(JSONL))
    (tmp_path / "crawl" / "c.csv").write_bytes(b"x")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), tmp_path / "crawl" / "d.parquet")
    for path in (f"{site}/crawl/", f"{site}/crawl/*.[jp]*"):
        source = DocumentsSource(kind="documents", paths=[path], origin_field="url")
        units = documents.list_units("own", source)
        assert [unit.files[0].rpartition("/")[2] for unit in units] == ["a.jsonl", "b.jsonl.gz", "d.parquet"]
        assert [(name, size) for name, size, _ in units[0].describe_inputs()] == [(f"{site}/crawl/a.jsonl", len(JSONL))]
        found, dropped = read(units)
        assert [document.text for document in found] == [record["text"] for record in RECORDS] * 3
        assert found[1].origin == "https://a.org/1"
        assert not dropped


def test_spawned_workers_read_addresses(site: str, tmp_path: Path) -> None:
    (tmp_path / "crawl" / "a.html").write_bytes(b"<p>From afar</p>")
    units = web.list_units("web", WebSource(kind="web", paths=[f"{site}/crawl/a.html"]), tmp_path)
    part = tmp_path / "part.jsonl.zst"
    with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as pool:
        account = pool.submit(extract_unit, units[0], [], part, tmp_path / "columns", DeduplicateConfig()).result()
    assert account.documents == 1
    assert [(document.text, document.origin) for document in read_documents(part)] == [
        ("From afar\n", f"{site}/crawl/a.html")
    ]


def test_a_connection_that_breaks_off_is_taken_up_again(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, "_WAIT_SECONDS", 0.0)
    content = b"".join(b"%d\n" % number for number in range(100_000))
    (tmp_path / "breaks" / "a.txt").write_bytes(content)
    with caplog.at_level(logging.WARNING), open_file(f"{site}/breaks/a.txt") as file:
        assert file.read() == content
    assert [record.getMessage() for record in caplog.records if "trying again" in record.getMessage()]


def test_a_server_that_went_away_ends_the_preparation_by_name(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_WAIT_SECONDS", 0.0)
    gone = "http://127.0.0.1:9/a.html"
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/a\.html: cannot be read: .*finished parts are kept"):
        read_file(gone, Account())
    with pytest.raises(DataError, match="cannot be listed: ClientConnectorError"):
        find_files("web", [gone], (".html",))
    with pytest.raises(DataError, match=r"paths: 'http://127\.0\.0\.1:9/a\.\*': cannot be listed: ClientConnector"):
        find_files("web", ["http://127.0.0.1:9/a.*"], (".html",))
    (tmp_path / "secret" / "a.html").touch()
    with pytest.raises(DataError, match=r"no access \(ClientResponseError: 403, message=.Forbidden"):
        find_files("web", [f"{site}/secret/a.html"], (".html",))
    with pytest.raises(DataError) as raised:
        find_files("web", [f"{site}/none.html"], (".html",))
    assert str(raised.value) == (
        f"corpus.sources.web.paths: '{site}/none.html' matches no file. Correct the path, or leave it out."
    )
    assert find_files("web", [f"{site}/none.html"], (".html",), is_optional=True) == []


def test_members_of_a_zip_file_and_local_addresses_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("b/one.html", "<p>One</p>")
        file.writestr("two.html", "<p>Two</p>")
        file.writestr("note.txt", "no page")
    (tmp_path / "three.html").write_text("<p>Three</p>")
    address = f"zip://**/*.html::{tmp_path}/a.zip"
    source = WebSource(kind="web", paths=[address, f"file://{tmp_path}/three.html"], extraction="all_text")
    found, _ = read(web.list_units("web", source, tmp_path))
    expected = {"Three": f"{tmp_path}/three.html", "One": f"zip://b/one.html::{tmp_path}/a.zip"}
    expected["Two"] = f"zip://two.html::{tmp_path}/a.zip"
    assert {document.text: document.origin for document in found} == expected


def test_folders_and_globs_of_a_storage_are_sorted_and_each_file_counts_once(memory: MemoryFileSystem) -> None:
    for name in ("/b/two.html", "/b/c/one.html", "/b/c/x.txt", "/d.html"):
        memory.pipe(name, b"<p>x</p>")
    found = find_files("web", ["memory://b/**", "memory://b", "memory://b/*.html", "memory://d.html"], (".html",))
    assert [file.name for file in found] == [
        "memory://b/c/one.html",
        "memory://b/c/x.txt",
        "memory://b/two.html",
        "memory://d.html",
    ]
    assert all(file.size == 8 and file.version for file in found)


def test_a_unit_of_a_storage_changes_with_its_file(memory: MemoryFileSystem) -> None:
    source = WebSource(kind="web", paths=["memory://a.html"])
    memory.pipe("/a.html", b"<p>x</p>")
    before = web.list_units("web", source, Path())
    assert before == web.list_units("web", source, Path())
    memory.pipe("/a.html", b"<p>y</p>")
    after = web.list_units("web", source, Path())
    assert before[0].describe_inputs() != after[0].describe_inputs()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://me:hunter2@a.org/x.html", "'https://***@a.org/x.html': holds a password"),
        ("zip://*.html::ftp://me:hunter2@a.org/a.zip", "::ftp://***@a.org/a.zip': holds a password"),
        ("https://a.org/x.warc.gz?X-Amz-Signature=hunter2", "'https://a.org/x.warc.gz': holds a signature or key"),
        ("https://a.org/x.warc.gz?token=hunter2", "'https://a.org/x.warc.gz': holds a signature or key"),
    ],
)
def test_credentials_in_addresses_are_refused_and_not_repeated(address: str, told: str) -> None:
    with pytest.raises(DataError) as raised:
        find_files("web", [address], (".html",))
    assert told in str(raised.value)
    assert "addresses are written into manifests" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_an_address_that_cannot_be_parsed_is_refused() -> None:
    with pytest.raises(DataError, match=r"paths: 'https://\*\*\*@\[bad/x': no address: its host cannot be read\."):
        find_files("web", ["https://me:hunter2@[bad/x"], (".html",))


def test_passwords_are_taken_out_of_what_storages_say() -> None:
    assert redact("proxy http://me:hunter2@proxy:80/ and s3://b") == "proxy http://***@proxy:80/ and s3://b"


def test_an_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"paths: 'gopher://a/b': unknown protocol\. Known to fsspec are: .*https.*s3"):
        find_files("web", ["gopher://a/b"], (".html",))


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known_implementations, "nowhere", {"class": "not_installed_here.Storage", "err": "Install it"})
    with pytest.raises(DataError) as raised:
        find_files("web", ["nowhere://a/b"], (".html",))
    assert str(raised.value) == (
        "corpus.sources.web.paths: 'nowhere://a/b': its protocol needs the Python package 'not_installed_here', which "
        "is not installed. Install it: pip install not_installed_here"
    )


def test_what_may_not_be_listed_says_where_credentials_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise PermissionError("Forbidden")

    monkeypatch.setattr(MemoryFileSystem, "info", refuse)
    with pytest.raises(DataError, match=r"'memory://a': no access \(PermissionError: Forbidden\)\. Give the credent"):
        find_stored("web", "memory://a", (".html",))


def test_a_bucket_of_s3_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = fsspec.filesystem("s3")
        bucket.mkdir("own")
        bucket.pipe({"own/a/one.jsonl": JSONL, "own/a/b/two.jsonl": JSONL, "own/note.csv": b""})
        source = DocumentsSource(kind="documents", paths=["s3://own/a/*.jsonl", "s3://own"])
        units = documents.list_units("own", source)
        assert [unit.files[0] for unit in units] == ["s3://own/a/b/two.jsonl", "s3://own/a/one.jsonl"]
        assert "hunter2" not in repr(units)
        found, _ = read(units)
        assert [document.text for document in found] == [record["text"] for record in RECORDS] * 2
        with pytest.raises(DataError, match=r"'s3://own/none' matches no file"):
            find_files("own", ["s3://own/none"], (".jsonl",))
        bucket.clear_instance_cache()
    finally:
        server.stop()


def test_units_of_many_archives_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 10_000

    def list_folder(self: object, path: str, detail: bool, **_: object) -> Iterator[tuple[str, dict[str, Any], Any]]:
        for folder in range(10):
            names = (f"/crawl/{folder:03d}/part-{number:05d}.warc.gz" for number in range(count // 10))
            yield "", {}, {name: {"name": name, "size": 10_000_000, "type": "file", "ETag": "x" * 32} for name in names}

    monkeypatch.setattr(MemoryFileSystem, "info", lambda *_: {"name": "/crawl", "type": "directory"})
    monkeypatch.setattr(MemoryFileSystem, "walk", list_folder)
    tracemalloc.start()
    units = web.list_units("web", WebSource(kind="web", paths=["memory://crawl"]), Path())
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(units) == count
    assert sum(size for unit in units for _, size, _ in unit.describe_inputs()) == 10**11
    assert held < 1_300 * count
    assert peak < 2_000 * count
