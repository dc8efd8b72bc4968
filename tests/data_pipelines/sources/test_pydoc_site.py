import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

from data_pipelines.account import Account
from data_pipelines.sources import pydoc_site
from data_pipelines.sources.pydoc_site import crawl_pydoc_site
from data_pipelines.sources.warc_records import read_records
from llmtrain.errors import DataError
from tests.data_pipelines.conftest import NUM_CRAWLED


def test_the_crawl_is_a_warc_archive_that_others_read(archive: Path) -> None:
    with archive.open("rb") as file:
        records = [
            (
                record.rec_headers.get_header("WARC-Target-URI"),
                record.http_headers.get_statuscode(),
                record.content_stream().read(),
            )
            for record in ArchiveIterator(file)
        ]
    urls = [url for url, _, _ in records]
    assert len(records) == NUM_CRAWLED
    assert urls[:2] == ["http://pydoc.localhost/index.html", "http://pydoc.localhost/topics.html"]
    assert urls[2:] == sorted(set(urls[2:]))
    assert {status for _, status, _ in records} == {"200"}
    assert all(b"<html" in body for _, _, body in records)


def test_a_crawl_is_done_once(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydoc_site, "_start_server", None)
    before = archive.stat()
    assert crawl_pydoc_site(archive) == archive
    assert archive.stat() == before


def test_of_crawls_at_once_the_first_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydoc_site, "_MAX_PAGES", 12)
    path = tmp_path / "pydoc.warc.gz"
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(crawl_pydoc_site, [path] * 3)) == [path] * 3
    assert [found.name for found in tmp_path.iterdir()] == ["pydoc.warc.gz"]
    account = Account()
    assert len(list(read_records(str(path), account))) == 12
    assert not account.dropped


def test_a_second_crawl_does_not_take_the_place_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pydoc.warc.gz"
    monkeypatch.setattr(pydoc_site, "_MAX_PAGES", 2)
    check = pydoc_site._check_archive

    def check_late(temporary: Path, count: int) -> None:
        check(temporary, count)
        path.write_bytes(b"the first one")

    monkeypatch.setattr(pydoc_site, "_check_archive", check_late)
    assert crawl_pydoc_site(path).read_bytes() == b"the first one"
    path.unlink()

    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert crawl_pydoc_site(path).read_bytes() == b"the first one"
    monkeypatch.setattr(pydoc_site, "_check_archive", check)
    path.unlink()
    assert crawl_pydoc_site(path).stat().st_size > 1000
    assert [found.name for found in tmp_path.iterdir()] == ["pydoc.warc.gz"]


def test_an_archive_that_cannot_be_read_again_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = pydoc_site._write_archive

    def write_half(path: Path, site: str) -> int:
        count = write(path, site)
        path.write_bytes(path.read_bytes()[:-100])
        return count

    monkeypatch.setattr(pydoc_site, "_MAX_PAGES", 2)
    monkeypatch.setattr(pydoc_site, "_write_archive", write_half)
    with pytest.raises(DataError, match=r"pydoc\.warc\.gz: could not be written: it cannot be read again: Compressed"):
        crawl_pydoc_site(tmp_path / "pydoc.warc.gz")
    assert list(tmp_path.iterdir()) == []


def test_modules_that_act_when_imported_and_other_sites_are_left_out() -> None:
    wanted = ["argparse.html", "email.mime.html", "topic?key=SLICINGS"]
    assert [path for path in wanted if not pydoc_site._is_wanted(path)] == []
    left_out = ["antigravity.html", "idlelib.run.html", "numpy.html", "http://example.org/x.html", "search?key=x"]
    assert [path for path in left_out if pydoc_site._is_wanted(path)] == []


def test_a_server_that_does_not_start_says_how_to_try_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(DataError, match=r"pydoc: its server did not start\. Try `python -m pydoc -p 0` by hand\."):
        crawl_pydoc_site(tmp_path / "pydoc.warc.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_ends_in_the_middle_leaves_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = []
    start, fetch = pydoc_site._start_server, pydoc_site._fetch

    def note_server() -> object:
        servers.append(start())
        return servers[0]

    def fetch_until_killed(url: str) -> bytes | None:
        if url.endswith("topics.html"):
            servers[0].kill()
            servers[0].wait()
        return fetch(url)

    monkeypatch.setattr(pydoc_site, "_start_server", note_server)
    monkeypatch.setattr(pydoc_site, "_fetch", fetch_until_killed)
    monkeypatch.setattr(pydoc_site, "_MAX_PAGES", 4)
    with pytest.raises(DataError, match=r"pydoc: its server at http://127\.0\.0\.1:\d+/ gave 1 pages"):
        crawl_pydoc_site(tmp_path / "pydoc.warc.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_archive_and_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = []
    start = pydoc_site._start_server

    def note_server() -> object:
        servers.append(start())
        return servers[0]

    def fill_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pydoc_site, "_start_server", note_server)
    monkeypatch.setattr("warcio.warcwriter.WARCWriter.write_record", fill_disk)
    with pytest.raises(DataError, match=r"pydoc\.warc\.gz: could not be written: .*No space left.*Free some space"):
        crawl_pydoc_site(tmp_path / "pydoc.warc.gz")
    assert list(tmp_path.iterdir()) == []
    assert servers[0].poll() is not None


@pytest.fixture
def broken_site() -> Iterator[str]:
    """A site whose page is shorter than announced, and whose other pages are missing."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server asks for
            self.send_response(200 if self.path == "/short.html" else 404)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"short")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_page_that_cannot_be_fetched_is_left_out(broken_site: str) -> None:
    assert pydoc_site._fetch(f"{broken_site}short.html") is None
    assert pydoc_site._fetch(f"{broken_site}missing.html") is None
