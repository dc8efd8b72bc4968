"""A unit of work: some input files of one source, read by one worker into one file of documents.

In: paths of a source's configuration. Out: units, in an order that depends on the paths alone.
"""

import glob
import importlib.util
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmtrain.errors import DataError


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
    """Files and folders that one entry of `paths` means.

    `package:NAME/FILE` lies inside an installed package, `stdlib:` is the standard library; the rest are paths or
    globs. Nothing found is an empty list.

    Raises:
        DataError: the package is not installed.
    """
    if path == "stdlib:":
        return [Path(sysconfig.get_paths()["stdlib"])]
    if path.startswith("package:"):
        return _expand_package(path)
    if glob.has_magic(path):
        return sorted(map(Path, glob.iglob(path, recursive=True)))  # noqa: PTH207  absolute globs
    return [Path(path)] if Path(path).exists() else []


def expand_paths(name: str, paths: Iterable[str]) -> list[Path]:
    """All files and folders of a source; every entry must give at least one.

    Raises:
        DataError: an entry matches nothing.
    """
    found: list[Path] = []
    for path in paths:
        matches = expand_path(path)
        if not matches:
            raise DataError(
                f"corpus.sources.{name}.paths: '{path}' matches no file. Correct the path, or leave it out."
            )
        found += matches
    return found


def list_files(paths: Iterable[Path], endings: Sequence[str]) -> list[Path]:
    """The given files, and below given folders all files with one of the endings; sorted, each once."""
    files: dict[Path, None] = {}
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            if file.is_file() and (file == path or file.name.endswith(tuple(endings))):
                files.setdefault(file.resolve())
    return sorted(files)


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


def _expand_package(path: str) -> list[Path]:
    package, _, inner = path.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"'{path}': the Python package '{package}' is not installed. Install it: pip install {package} "
            "(the quickstart's are in pip install 'llmtrain[quickstart]')."
        )
    file = Path(next(iter(spec.submodule_search_locations))) / inner
    return [file] if file.exists() else []
