"""Text that package registries ship: Debian packages and wheels, fetched with their ordinary clients.

    deb:golang-1.19-src/usr/share/go-1.19/src     apt-get download, dpkg-deb --extract; nothing is installed
    pypi:gensim==4.4.0/gensim/test/test_data      pip download, the wheel unpacked

A package is fetched once and kept below `downloads/packages`; it appears there when it is complete.
"""

import re
import secrets
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from llmtrain.errors import DataError

_SECONDS = 900
_INSIDE_PACKAGE = re.compile(r"^.*/downloads/packages/(deb|pypi)-([^/]+)/")
_TOLD_CHARACTERS = 300


def is_package_path(path: str) -> bool:
    """Whether an entry of `paths` names a package of a registry."""
    return path.startswith(("deb:", "pypi:"))


def fetch_package(path: str, downloads: Path) -> Path:
    """The place an entry of `paths` names, in a package that is fetched unless it was before.

    Args:
        path: `deb:NAME/INNER` or `pypi:NAME[==VERSION]/INNER`; the inner path may be a glob.
        downloads: `data.folder/downloads`.

    Raises:
        DataError: the client is missing or failed.
    """
    kind, _, rest = path.partition(":")
    name, _, inner = rest.partition("/")
    folder = downloads / "packages" / f"{kind}-{name}"
    if not folder.is_dir():
        staging = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}.tmp")
        staging.mkdir(parents=True)
        try:
            (_fetch_deb if kind == "deb" else _fetch_wheel)(name, staging)
            try:
                staging.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another task has fetched it meanwhile
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return folder / inner


def name_origin(origin: str) -> str:
    """An origin as `paths` would name it, when it lies inside a fetched package: no folder of this machine is in it."""
    return _INSIDE_PACKAGE.sub(r"\1:\2/", origin)


def _fetch_deb(name: str, folder: Path) -> None:
    _run(["apt-get", "download", "--quiet", name], folder, f"deb:{name}", "Run `apt-get update`, or install apt")
    for archive in folder.glob("*.deb"):
        _run(["dpkg-deb", "--extract", str(archive), str(folder)], folder, f"deb:{name}", "Install dpkg")
        archive.unlink()


def _fetch_wheel(name: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    _run([*command, "--dest", str(folder), name], folder, f"pypi:{name}", "See what pip says")
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        wheel.unlink()


def _run(command: Sequence[str], folder: Path, what: str, remedy: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(
            f"{what}: {command[0]} could not be run: {error}. {remedy}, or leave it out of paths."
        ) from error
    if done.returncode:
        told = " ".join(done.stderr.split())[-_TOLD_CHARACTERS:]
        raise DataError(f"{what}: could not be fetched: {told} {remedy}, or leave it out of paths.")
