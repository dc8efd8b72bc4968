"""A unit of work: some input files of one source, read by one worker into one file of documents.

In: paths of a source's configuration. Out: units, in an order that depends on the paths alone.
"""

import glob
import importlib.util
import logging
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmtrain.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unit:
    """Files read together. `root` is what origins are relative to."""

    kind: str
    root: str
    files: tuple[str, ...]
    licence: str
    text_field: str = ""
    split: str = ""

    def describe_inputs(self) -> list[tuple[str, int, int]]:
        """Path, size and modification time of each file: what tells that nothing has changed."""
        stats = [(name, Path(name).stat()) for name in self.files if not name.startswith("hub:")]
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


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
    if glob.has_magic(path):
        return sorted(_match(path))
    return [Path(path)] if Path(path).exists() else []


def expand_paths(name: str, paths: Iterable[str]) -> list[Path]:
    """All files and folders of a source; every entry must give at least one.

    Raises:
        DataError: an entry matches nothing, or its package is not installed.
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
            raise DataError(
                f"corpus.sources.{name}.paths: '{path}' matches no file. Correct the path, or leave it out."
            )
        found += matches
    return found


def list_files(paths: Iterable[Path], endings: Sequence[str]) -> list[Path]:
    """The given files, and below given folders all files with one of the endings; sorted, each once.

    Links are followed, but not back to a folder above. What may not be read is left out with a warning.
    """
    files: dict[Path, None] = {}
    for path in paths:
        inside = _list_inside(path, tuple(endings)) if path.is_dir() else [path]
        files |= {file.resolve(): None for file in inside if _holds(file.is_file)}
    return sorted(files)


def read_file(path: Path, dropped: Counter[str]) -> bytes | None:
    """What a file holds; None when it cannot be read, which is counted as `unreadable`."""
    try:
        return path.read_bytes()
    except OSError as error:
        logger.warning("%s: left out: %s", path, error)
        dropped["unreadable"] += 1
        return None


def group_files(
    kind: str, root: str, files: Sequence[Path], licence: str, max_bytes: int = 8_000_000, max_files: int = 200
) -> list[Unit]:
    """Neighbouring files as units of bounded size."""
    units: list[Unit] = []
    group: list[str] = []
    size = 0
    for file in files:
        length = file.stat().st_size
        if group and (size + length > max_bytes or len(group) == max_files):
            units.append(Unit(kind, root, tuple(group), licence))
            group, size = [], 0
        group.append(str(file))
        size += length
    if group:
        units.append(Unit(kind, root, tuple(group), licence))
    return units


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
    """A folder and all below it, through links too, but not back to one of those above."""
    try:
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
        yield from (path for path in inner.iterdir() if path.name.endswith(endings))


def _holds(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError as error:
        logger.warning("left out: %s", error)
        return False
