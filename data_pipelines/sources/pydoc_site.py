"""The documentation site that Python serves about itself, crawled over loopback into a WARC archive.

`python -m pydoc -p PORT` is a real web site of some hundred pages that every Python has: a page for each module of the
standard library, and the topics of the language reference. The child process sees no installed packages.
"""

import logging
import os
import re
import secrets
import subprocess
import sys
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import ProxyHandler, build_opener

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data_pipelines.account import Account
from data_pipelines.sources.warc_records import read_records
from llmtrain.errors import DataError

logger = logging.getLogger(__name__)

_PAGE_SECONDS, _MAX_PAGES = 20, 2000
_READY = re.compile(rb"Server ready at (http://\S+)")
_LINK = re.compile(r"""href=["']([^"'#]+\.html|topic\?key=[^"'#]+)["']""")
# A proxy that the user has set must not be asked for pages of this machine.
_OPENER = build_opener(ProxyHandler({}))
# Importing these opens windows or browsers, prints, or only makes sense on other systems.
_SKIPPED = {"antigravity", "this", "idlelib", "turtledemo", "turtle", "test", "tkinter", "__phello__", "__hello__"}


def crawl_pydoc_site(archive: Path) -> Path:
    """Crawl the site into a WARC archive, unless it is there already.

    Args:
        archive: file to write, `*.warc.gz`; it appears when the crawl is complete.

    Returns:
        The archive.

    Raises:
        DataError: the site could not be started or read, or the archive could not be written.
    """
    if archive.exists():
        return archive
    # Several tasks may crawl at once, on any machines.
    temporary = archive.with_name(f"{archive.name}.{secrets.token_hex(8)}.tmp")
    server = _start_server()
    try:
        site = _read_address(server)
        count = _write_archive(temporary, site)
        if count < 2 or server.poll() is not None:
            raise DataError(
                f"pydoc: its server at {site} gave {count} pages and then no more. Is the standard library complete? "
                "Try `python -m pydoc -p 0` by hand."
            )
        _check_archive(temporary, count)
        _publish(temporary, archive)
    except OSError as error:
        raise DataError(
            f"{archive}: could not be written: {error}. Free some space, then run `llmtrain data prepare` again."
        ) from error
    finally:
        _stop_server(server)
        temporary.unlink(missing_ok=True)
    logger.info("crawled %d pages of the site of pydoc into %s", count, archive)
    return archive


def _write_archive(path: Path, site: str) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for url, body in _crawl(site):
            headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.0")
            canonical = url.replace(site, "http://pydoc.localhost/")
            writer.write_record(
                writer.create_warc_record(canonical, "response", payload=BytesIO(body), http_headers=headers)
            )
            count += 1
            if count % 100 == 0:
                logger.info("crawling the site of pydoc: %d pages", count)
    return count


def _check_archive(path: Path, count: int) -> None:
    account = Account()
    try:
        readable = sum(1 for _ in read_records(str(path), account))
    except (EOFError, ValueError, zlib.error) as error:
        raise OSError(f"it cannot be read again: {error}") from error
    if readable != count or account.dropped:
        raise OSError(f"of {count} pages {readable} can be read again")


def _publish(temporary: Path, archive: Path) -> None:
    """Give it its name, unless another task was first: what was made of that one must stay true."""
    try:
        archive.hardlink_to(temporary)
    except FileExistsError:
        logger.info("%s: another task was first; its crawl is kept", archive)
    except OSError:  # not every file system has links
        if not archive.exists():
            temporary.replace(archive)


def _start_server() -> "subprocess.Popen[bytes]":
    # -I -S: no packages of the user or the environment, so that the text depends on this Python only.
    command = [sys.executable, "-I", "-S", "-u", "-m", "pydoc", "-n", "127.0.0.1", "-p", "0"]
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", "PYTHONHASHSEED": "0", "BROWSER": "true"}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )


def _read_address(server: "subprocess.Popen[bytes]") -> str:
    assert server.stdout is not None
    for line in server.stdout:
        if found := _READY.search(line):
            return found.group(1).decode()
    raise DataError("pydoc: its server did not start. Try `python -m pydoc -p 0` by hand.")


def _stop_server(server: "subprocess.Popen[bytes]") -> None:
    server.kill()
    server.communicate()


def _crawl(site: str) -> Iterator[tuple[str, bytes]]:
    """Breadth first, in alphabetical order; pages below a package come after all that stand on the index."""
    level, seen = [urljoin(site, "index.html"), urljoin(site, "topics.html")], set[str]()
    while level and len(seen) < _MAX_PAGES:
        links: set[str] = set()
        for url in level[: _MAX_PAGES - len(seen)]:
            seen.add(url)
            body = _fetch(url)
            if body is None:
                continue
            yield url, body
            links |= {urljoin(site, link) for link in _LINK.findall(body.decode("utf-8", "replace"))}
        level = sorted(link for link in links - seen if _is_wanted(link.removeprefix(site)))


def _is_wanted(path: str) -> bool:
    if path.startswith("topic?key="):
        return True
    module = path.removesuffix(".html").split(".")[0]
    return "/" not in path and "?" not in path and module in sys.stdlib_module_names and module not in _SKIPPED


def _fetch(url: str) -> bytes | None:
    try:
        with _OPENER.open(url, timeout=_PAGE_SECONDS) as response:
            body: bytes = response.read()
            return body
    except (OSError, HTTPException) as error:
        logger.debug("%s: left out: %s", url, error)
        return None
