"""Files wherever they are: local paths, and addresses such as `s3://bucket/*.warc.gz` that fsspec knows.

    find_stored(name, address, endings)   files that an address means: name, size and version of each
    open_file(name)                       what any file holds, as a stream, local or not

fsspec chooses the storage by the protocol (`s3`, `gs`, `hf`, `https`, `zip`, ...) and takes credentials from where each
storage looks for them (the environment, `~/.aws`, `~/.config/fsspec`). An address that holds credentials itself is
refused: addresses are written into manifests. A stream that breaks off is opened again where it was.
"""

import io
import logging
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qsl, urlsplit

from llmtrain.errors import DataError

logger = logging.getLogger(__name__)

_READ_BYTES = 1 << 20
_BLOCK_BYTES = 8 << 20
_TRIES = 5
_WAIT_SECONDS = 1.0
_WEB = ("http", "https")
_NOT_THERE, _NO_ACCESS = (404, 410), (401, 403)
_LOCAL = ("file://", "local://")
_CREDENTIAL_IN_TEXT = re.compile(r"(\w://)[^/\s@]*@")
_CREDENTIAL_KEY = re.compile(r"(?i)(?:^|[-_])(?:sig|signature|token|key|apikey|password|secret|credential)s?$")
# The first of these that a storage gives tells a changed file from the same one.
_VERSIONS: tuple[str, ...] = (
    "ETag",
    "etag",
    "sha256",
    "md5Hash",
    "crc32c",
    "Content-MD5",
    "Digest",
    "blob_id",
    "CRC",
    "LastModified",
)
_VERSIONS += ("last_modified", "Last-Modified", "mtime", "created")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as it was when it was listed."""

    name: str
    """Path or address."""
    size: int
    """Bytes; 0 where the storage does not say."""
    version: str = ""
    """Entity tag, checksum or time of change."""
    label: str = field(default="", compare=False)
    """As `paths` spells it, where that is not its name."""


def is_address(name: str) -> bool:
    """Whether fsspec opens it; `file://` is a local path."""
    return "://" in name and not name.startswith(_LOCAL)


def to_path(name: str) -> str:
    """A local path, also when it is written as `file://`."""
    for prefix in _LOCAL:
        name = name.removeprefix(prefix)
    return name


def strip_address(name: str) -> str:
    """A name that ends as its file does: without the archives around it and the query of its address."""
    return name.partition("::")[0].partition("?")[0] if is_address(name) else name


def ends_in(name: str, endings: tuple[str, ...]) -> bool:
    """Whether a name ends so, in capitals or not (`CRAWL.WARC`)."""
    return name.endswith(endings) or name.lower().endswith(endings)


def open_file(name: str, *, is_seekable: bool = False) -> BinaryIO:
    """What a file holds, as a buffered stream of bounded memory.

    Args:
        name: path or address.
        is_seekable: whether the reader jumps about in it (parquet); a web server must know ranges for that.

    Raises:
        OSError: it cannot be opened. Reading raises nothing else either.
    """
    if not is_address(name):
        return Path(to_path(name)).open("rb")
    return cast(BinaryIO, io.BufferedReader(_RemoteFile(name, is_seekable), _READ_BYTES))


def find_stored(name: str, address: str, endings: tuple[str, ...]) -> list[StoredFile]:
    """Files that an address or a glob of addresses means, sorted by name; below a folder those with an ending.

    Args:
        name: of the source, for messages.
        address: as in `paths`.
        endings: of the files that count below a folder.

    Raises:
        DataError: it is no address or holds credentials, its protocol is unknown or lacks a package, or access is
            refused.
    """
    _refuse_credentials(name, address)
    where = f"corpus.sources.{name}.paths: '{address}'"
    try:
        storage, path = _find_storage(address)
        try:
            files = {file.name: file for file in _list(storage, path, address, endings)}
        finally:
            storage.invalidate_cache()  # listings of a large storage would stay in memory
    except FileNotFoundError as error:
        # fsspec says so of every answer of a web server but success.
        cause = error.__cause__
        if (
            not isinstance(cause, Exception)
            or not address.startswith(_WEB)
            or getattr(cause, "status", 0) in _NOT_THERE
        ):
            return []
        raise DataError(f"{where}: {_explain(cause)}") from error
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or str(error)
        raise DataError(
            f"{where}: its protocol needs the Python package '{package}', which is not installed. Install it: "
            f"pip install {package}"
        ) from error
    except Exception as error:  # each storage raises its own
        raise DataError(f"{where}: {_explain(error)}") from error
    return sorted(files.values(), key=lambda file: file.name)


def refuse_remote(name: str, error: OSError) -> None:
    """End the preparation if a file that could not be read is behind an address; a local one costs only itself.

    Raises:
        DataError: it is.
    """
    if is_address(name):
        raise DataError(
            f"{name}: cannot be read: {error}. When its storage answers again, run `llmtrain data prepare` again: "
            "finished parts are kept."
        ) from error


def redact(text: str) -> str:
    """The text without user names and passwords of addresses."""
    return _CREDENTIAL_IN_TEXT.sub(r"\1***@", text)


def _find_storage(address: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # only where one is asked for

    storage, path = url_to_fs(address)
    return storage, path


def _list(storage: Any, path: str, address: str, endings: tuple[str, ...]) -> Iterator[StoredFile]:
    prefix = _find_prefix(storage, path, address)
    for info in _match(storage, path, address):
        is_folder = info["type"] == "directory"
        if is_folder and "**" in path:
            continue  # such a glob gives the files below it, too
        for found in _walk(storage, info["name"], endings) if is_folder else iter([info]):
            if found.get("size") is None:  # a page that lists files does not tell their sizes
                found = storage.info(found["name"])
            version = next((str(found[key]) for key in _VERSIONS if found.get(key) is not None), "")
            _, *rest = address.split("::")
            yield StoredFile("::".join([prefix + found["name"], *rest]), int(found.get("size") or 0), version)


def _match(storage: Any, path: str, address: str) -> Iterable[dict[str, Any]]:
    is_web = address.startswith(_WEB)
    if re.search(r"[*\[]" if is_web else r"[*?\[]", path):
        matches: dict[str, dict[str, Any]] = storage.glob(path, detail=True)
        return matches.values()
    if is_web and path.endswith("/"):
        return [{"name": path, "type": "directory"}]
    return [storage.info(path)]


def _walk(storage: Any, folder: str, endings: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for _, _, files in storage.walk(folder, detail=True):
        yield from (info for info in files.values() if ends_in(info["name"], endings))


def _find_prefix(storage: Any, path: str, address: str) -> str:
    """What stands before names as the storage spells them: protocol, and the host where names lack it."""
    first = address.partition("::")[0].rstrip("/")
    if first.endswith(path.rstrip("/")):
        return first.removesuffix(path.rstrip("/"))
    return str(storage.unstrip_protocol(path)).removesuffix(path)


def _refuse_credentials(name: str, address: str) -> None:
    for part in address.split("::"):
        try:
            split = urlsplit(part)
        except ValueError as error:
            raise DataError(
                f"corpus.sources.{name}.paths: '{redact(address)}': no address: its host cannot be read. Correct it."
            ) from error
        has_password = split.password is not None
        if has_password or any(_CREDENTIAL_KEY.search(key) for key, _ in parse_qsl(split.query)):
            told = redact(address).partition("?")[0]
            raise DataError(
                f"corpus.sources.{name}.paths: '{told}': holds {'a password' if has_password else 'a signature or key'}"
                ", and addresses are written into manifests and run folders. Give it where the storage looks for it: "
                "the environment (AWS_*, HF_TOKEN, ...), ~/.aws, or ~/.config/fsspec/conf.json."
            )


def _explain(error: Exception) -> str:
    told = redact(f"{type(error).__name__}: {str(error).rstrip('.')}")
    if isinstance(error, ValueError) and "Protocol not known" in str(error):
        from fsspec.registry import known_implementations

        known = ", ".join(sorted(known_implementations))
        return f"unknown protocol. Known to fsspec are: {known}."
    is_refused = isinstance(error, PermissionError) or getattr(error, "status", 0) in _NO_ACCESS
    if is_refused or "credentials" in str(error).lower():
        return (
            f"no access ({told}). Give the credentials where the storage looks for them: the environment (AWS_*, "
            "HF_TOKEN, ...), ~/.aws, or ~/.config/fsspec/conf.json."
        )
    return f"cannot be listed: {told}. Correct the address, or try again when the storage answers."


class _RemoteFile(io.RawIOBase):
    """A file of a storage. Every failure is an OSError; one that may pass is tried again from the same position."""

    def __init__(self, name: str, is_seekable: bool) -> None:
        self._name, self._is_seekable = name, is_seekable
        self._position, self._left = 0, _TRIES
        self._file: Any = None
        self._try(self._open)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._is_seekable

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = int(self._try(lambda: self._file.seek(offset, whence)))
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._try(lambda: self._file.read(len(buffer)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if self._file is not None and not self.closed:
            self._file.close()
        super().close()

    def _open(self) -> None:
        # The storage is kept: one inside an archive closes that when it goes.
        self._storage, path = _find_storage(self._name)
        # Not every web server knows ranges: without blocks it is one request.
        is_stream = self._name.startswith(_WEB) and not self._is_seekable
        self._file = self._storage.open(path, "rb", block_size=0 if is_stream else _BLOCK_BYTES)
        if self._position and is_stream:
            skipped = 0
            while skipped < self._position and (data := self._file.read(min(_READ_BYTES, self._position - skipped))):
                skipped += len(data)
        elif self._position:
            self._file.seek(self._position)

    def _try(self, action: Any) -> Any:
        while True:
            try:
                if self._file is None and action != self._open:
                    self._open()
                return action()
            except Exception as error:  # each storage raises its own
                self._left -= 1
                told = redact(f"{type(error).__name__}: {error}")
                if self._left <= 0 or isinstance(error, FileNotFoundError | PermissionError | ImportError | ValueError):
                    raise OSError(told) from error
                logger.warning("%s: %s; trying again", self._name, told)
                self._file = None
                time.sleep(_WAIT_SECONDS * (_TRIES - self._left))
