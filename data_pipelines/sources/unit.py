"""A unit of work: some input files of one source, read by one worker into one file of documents.

In: paths of a source's configuration. Out: units, in an order that depends on the paths alone.

    find_files(name, paths, endings)      all files of a source, local or not
    Unit(..., (file.name,), ..., listed=(file,))      and `open_file(name)` of `storage` in its reader
"""

import glob
import importlib.util
import logging
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.account import Account
from data_pipelines.sources.compressed import MAX_RECORD_BYTES, read_whole
from data_pipelines.sources.storage import (
    StoredFile,
    ends_in,
    find_stored,
    is_address,
    open_file,
    refuse_remote,
    to_path,
)
from llmtrain.errors import DataError

logger = logging.getLogger(__name__)


DATA_MARK = "prepare.lock"
"""A folder that holds it was written by `llmtrain data prepare`: no input, unless something inside it is named."""


@dataclass(frozen=True)
class CodeRules:
    """Which files of a source of code count, as its configuration says."""

    extensions: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    keep_vendored: bool = False


@dataclass(frozen=True)
class Unit:
    """Files read together. `root` is what origins are relative to."""

    kind: str
    root: str
    files: tuple[str, ...]
    licence: str
    text_field: str = ""
    split: str = ""
    origin_field: str = ""
    licence_field: str = ""
    extraction: str = ""
    listed: tuple[StoredFile, ...] = ()
    """Its files as they were when they were listed, but for datasets of the hub."""
    rules: CodeRules = CodeRules()
    share: tuple[int, int] = (0, 1)
    """Number of the share that is read of its one file, and how many shares there are."""

    def describe_inputs(self) -> list[tuple[str, int, str]]:
        """Name, size and modification time or version of each file: what tells that nothing has changed.

        Sizes of the shares of a file add up to its size.
        """
        number, count = self.share
        return [
            (file.name, file.size * (number + 1) // count - file.size * number // count, file.version)
            for file in self.listed
        ]

    def count_bytes(self) -> int:
        """Bytes of its inputs."""
        return sum(size for _, size, _ in self.describe_inputs())

    def label(self, name: str) -> str:
        """A file as `paths` spells it."""
        return next((file.label or name for file in self.listed if file.name == name), name)

    def refuse_changed(self) -> None:
        """Look at local files again, after they were read: half of an old and half of a new file is no text.

        Raises:
            DataError: one is not as it was listed.
        """
        for file in self.listed:
            if is_address(file.name):
                continue
            try:
                is_same = look_at(Path(file.name)) == file
            except OSError:
                is_same = False
            if not is_same:
                raise DataError(
                    f"{file.name}: changed while it was read. Let nothing write to it, then run `llmtrain data "
                    "prepare` again: finished parts of other files are kept."
                )


def refuse_none(name: str, units: list[Unit], wanted: str) -> list[Unit]:
    """The units of a source, of which there must be one.

    Raises:
        DataError: there is none.
    """
    if not units:
        raise DataError(
            f"corpus.sources.{name}.paths: they hold no file that counts: {wanted}. Correct paths, or what counts."
        )
    return units


def find_files(
    name: str, paths: Sequence[str], endings: Sequence[str], *, is_optional: bool = False
) -> list[StoredFile]:
    """All files that entries of `paths` mean, local ones and those behind addresses, each kind sorted by name.

    Args:
        name: of the source, for messages.
        paths: files, folders, globs and addresses.
        endings: of the files that count below a folder.
        is_optional: nothing is wrong when an entry matches nothing.

    Raises:
        DataError: an entry matches nothing, or a storage does not answer.
    """
    addresses = [path for path in paths if is_address(path)]
    local = [to_path(path) for path in paths if not is_address(path)]
    labels: dict[Path, str] = {}
    for path in local:
        for match in expand_path(path) if is_optional else expand_paths(name, [path]):
            for file in list_files([match], endings):
                labels.setdefault(file, spell(path, match, file))
    files = [look_at(file, label) for file, label in sorted(labels.items())]
    stored: dict[str, StoredFile] = {}
    for address in addresses:
        matches = find_stored(name, address, tuple(endings))
        if not matches and not is_optional:
            raise DataError(_tell_no_match(name, address))
        stored |= {file.name: file for file in matches}
    return files + sorted(stored.values(), key=lambda file: file.name)


def look_at(path: Path, label: str = "") -> StoredFile:
    """A local file as it is now: its size, and its time of modification as its version."""
    status = path.stat()
    return StoredFile(str(path), status.st_size, str(status.st_mtime_ns), label if label != str(path) else "")


def spell(entry: str, match: Path, file: Path) -> str:
    """A file as an entry of `paths` spells it: relative where that is, and by package instead of by folder.

    Args:
        entry: of `paths`.
        match: one of the files and folders that it means.
        file: that one, or one below it, resolved.
    """
    place = match.resolve()
    if not file.is_relative_to(place):  # a link led out of it
        return str(file)
    inner = file.relative_to(place).as_posix()
    if entry == "stdlib:":
        return f"{entry}{inner}"
    spelled = entry if entry.startswith("package:") else match.as_posix()
    return spelled if inner == "." else f"{spelled}/{inner}"


def expand_path(path: str) -> list[Path]:
    """Files and folders that one entry of `paths` means; nothing found is an empty list.

    `package:NAME/FILE` lies inside an installed package, `stdlib:` is the standard library; the rest are paths or
    globs.
    """
    if path == "stdlib:":
        return [Path(sysconfig.get_paths()["stdlib"])]
    if path.startswith("package:"):
        name, _, inner = path.removeprefix("package:").partition("/")
        folder = _find_package(name)
        return [folder / inner] if folder and (folder / inner).exists() else []
    if Path(path).exists():  # a name may hold what elsewhere means a glob
        return [Path(path)]
    return sorted(_match(path)) if glob.has_magic(path) else []


def expand_paths(name: str, paths: Iterable[str]) -> list[Path]:
    """All files and folders of a source; every entry must give at least one.

    Raises:
        DataError: an entry matches nothing or no file, or its package is not installed.
    """
    found: list[Path] = []
    for path in paths:
        matches = expand_path(path)
        if not matches:
            package = path.removeprefix("package:").partition("/")[0]
            if path.startswith("package:") and not _find_package(package):
                raise DataError(
                    f"corpus.sources.{name}.paths: '{path}': the Python package '{package}' is not installed. Install "
                    f"it: pip install {package} (the quickstart's are in pip install 'llmtrain[quickstart]')."
                )
            raise DataError(_tell_no_match(name, path))
        if matches == [Path(path)] and not (matches[0].is_file() or matches[0].is_dir()):
            raise DataError(
                f"corpus.sources.{name}.paths: '{path}' is neither a file nor a folder but a pipe, socket or device, "
                "which could not be read twice. Write it to a file."
            )
        found += matches
    return found


def list_files(paths: Iterable[Path], endings: Sequence[str]) -> list[Path]:
    """The given files, and below given folders all files with one of the endings; sorted, each once.

    Links are followed, but not back to a folder above. Folders of prepared data below a given one are left out, and
    what may not be read, with a warning.
    """
    files: dict[Path, None] = {}
    for path in paths:
        inside = _list_inside(path, tuple(endings)) if path.is_dir() else [path]
        files |= {file.resolve(): None for file in inside if _holds(file.is_file)}
    return sorted(files)


def read_file(name: Path | str, account: Account) -> bytes | None:
    """What a file holds; None when it cannot be read, or is too large, which are counted.

    Raises:
        DataError: its storage does not answer: others could not be read either.
    """
    try:
        if is_address(str(name)):
            with open_file(str(name)) as file:
                content = read_whole(file)
        else:
            path = Path(name)
            content = path.read_bytes() if path.stat().st_size <= MAX_RECORD_BYTES else None
    except OSError as error:
        refuse_remote(str(name), error)
        logger.warning("%s: left out: %s", name, error)
        account.drop("unreadable", str(name))
        return None
    if content is None:
        account.drop("too_large", str(name))
    return content


def group_files(
    kind: str,
    root: str,
    files: Sequence[Path | StoredFile],
    licence: str,
    max_bytes: int = 8_000_000,
    max_files: int = 200,
    extraction: str = "",
    rules: CodeRules = CodeRules(),
) -> list[Unit]:
    """Neighbouring files as units of bounded size."""
    units: list[Unit] = []
    group: list[StoredFile] = []
    size = 0

    def close() -> None:
        if group:
            names = tuple(file.name for file in group)
            units.append(Unit(kind, root, names, licence, extraction=extraction, listed=tuple(group), rules=rules))

    for file in files:
        stored = file if isinstance(file, StoredFile) else look_at(file)
        if group and (size + stored.size > max_bytes or len(group) == max_files):
            close()
            group, size = [], 0
        group.append(stored)
        size += stored.size
    close()
    return units


def _tell_no_match(name: str, path: str) -> str:
    return f"corpus.sources.{name}.paths: '{path}' matches no file. Correct the path, or leave it out."


def _find_package(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def _match(pattern: str) -> Iterator[Path]:
    """Matches of a glob. The standard library's never ends below `**` where links lead back to a folder above."""
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from map(Path, glob.iglob(pattern))  # noqa: PTH207  absolute globs
        return
    place = parts.index("**")
    for base in _match(str(Path(*parts[:place]))):
        for folder in _list_folders(base) if base.is_dir() else ():
            if not any(part.startswith(".") for part in folder.relative_to(base).parts):
                yield from _match(str(Path(glob.escape(str(folder)), *parts[place + 1 :])))


def _list_folders(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """A folder and all below it, through links too, but not back to one of those above, nor into prepared data."""
    try:
        if above and (folder / DATA_MARK).exists():
            return
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        inner = sorted(path for path in folder.iterdir() if _holds(path.is_dir))
    except OSError as error:
        logger.warning("left out: %s", error)
        return
    yield folder
    for path in inner:
        yield from _list_folders(path, above | {identity})


def _list_inside(folder: Path, endings: tuple[str, ...]) -> Iterator[Path]:
    for inner in _list_folders(folder):
        yield from (path for path in inner.iterdir() if ends_in(path.name, endings))


def _holds(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError as error:
        logger.warning("left out: %s", error)
        return False
