"""Command `doctor`: what this machine has and lacks for training, each finding with its remedy.

A check is a function that gives findings; the list at the end is all there is to it. Nothing here imports torch.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_STALE_SECONDS = 3600
_SHARED_FILE_SYSTEMS = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "fuse", "afs", "9p")
_NEEDED_GIB = 5


@dataclass(frozen=True)
class Finding:
    """One fact about this machine; a remedy where it is not fine."""

    subject: str
    status: Literal["ok", "warning", "problem"]
    found: str
    remedy: str = ""


def run_doctor(as_json: bool, fix: bool) -> int:
    """Print all findings on standard output.

    Args:
        as_json: print a JSON list instead of a table.
        fix: remove build locks that nobody holds.

    Returns:
        0, or 3 when there is a problem.
    """
    findings = [finding for check in CHECKS for finding in check()] + list(check_build_locks(fix))
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")
    else:
        table = Table("", "subject", "found", "remedy")
        marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "problem": "[red]problem[/]"}
        for finding in findings:
            table.add_row(marks[finding.status], *map(escape, (finding.subject, finding.found, finding.remedy)))
        Console().print(table)
    return 3 if any(finding.status == "problem" for finding in findings) else 0


def check_python() -> Iterator[Finding]:
    """The version of Python."""
    version, needed = platform.python_version(), _read_metadata().get("Requires-Python", "")
    if SpecifierSet(needed).contains(version, prereleases=True):
        yield Finding("python", "ok", version)
    else:
        yield Finding("python", "problem", f"{version}, needed {needed}", f"Make a virtual environment with {needed}.")


def check_packages() -> Iterator[Finding]:
    """Installed packages against the bounds that llmtrain was tested with."""
    requirements = _read_metadata().get("Requires-Dist", [])
    if not requirements:
        yield Finding("llmtrain", "problem", "not installed, only its source is here", "pip install -e .")
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(requirement.name, "problem", "not installed", f"pip install '{requirement}'")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            yield Finding(requirement.name, "ok", version)
        else:
            remedy = f"pip install '{requirement}'"
            yield Finding(requirement.name, "warning", f"{version}, tested with {requirement.specifier}", remedy)


def check_processors() -> Iterator[Finding]:
    """Cores, threads and GPUs."""
    cores, threads = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS", "")
    yield Finding("CPU cores", "ok", str(cores))
    if threads and (not threads.isdigit() or not 0 < int(threads) <= cores):
        yield Finding(
            "OMP_NUM_THREADS", "warning", f"{threads} threads on {cores} cores", f"export OMP_NUM_THREADS={cores}"
        )
    gpus = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if not gpus:
        yield Finding("GPU", "ok", "none; training runs on the CPU")
    elif "+cpu" in _find_torch_version():
        remedy = "Install a CUDA build of torch, see https://pytorch.org/get-started/locally"
        yield Finding("GPU", "warning", f"{len(gpus)}, but torch is a CPU build", remedy)
    else:
        yield Finding("GPU", "ok", f"{len(gpus)} NVIDIA")


def check_compiler() -> Iterator[Finding]:
    """A C++ compiler, which only `training.compile` on CPU needs."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    yield Finding("C++ compiler", "ok", compiler or "none; only training.compile on CPU needs one")


def check_loopback() -> Iterator[Finding]:
    """Whether ranks on this machine can meet."""
    try:
        with socket.socket() as server, socket.socket() as client:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.settimeout(2)
            client.connect(server.getsockname())
        yield Finding("loopback", "ok", "ranks on this machine can meet")
    except OSError as error:
        yield Finding("loopback", "problem", str(error), "Bring up the interface: ip link set lo up")


def check_disk() -> Iterator[Finding]:
    """Free space here and in shared memory."""
    for name, folder, needed in (("disk", ".", _NEEDED_GIB), ("shared memory", "/dev/shm", 0.1)):
        if not Path(folder).exists():
            continue
        free = shutil.disk_usage(folder).free / 2**30
        if free < needed:
            yield Finding(name, "warning", f"{free:.1f} GiB free", f"The quickstart needs {needed} GiB: free some.")
        else:
            yield Finding(name, "ok", f"{free:.1f} GiB free")


def check_leftovers() -> Iterator[Finding]:
    """Checkpoints that a killed run left half-written; the next save of that run removes them."""
    for path in sorted(Path("runs").glob("*/checkpoints/*.tmp")):
        yield Finding("checkpoint", "ok", f"{path} is unfinished; the run removes it when it resumes")


def check_database() -> Iterator[Finding]:
    """Whether the runs' MLflow database can be read."""
    database = Path("runs/mlflow.db")
    if not database.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            count = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        yield Finding("MLflow database", "ok", f"{database}: {count} runs")
    except sqlite3.Error as error:
        remedy = "Move it and runs/*/mlflow.json away; `llmtrain tracking sync RUN` writes a run into a new one."
        yield Finding("MLflow database", "warning", f"{database}: {error}", remedy)


def check_build_locks(fix: bool) -> Iterator[Finding]:
    """Locks of compiled extensions that nobody holds: a start that needs the extension would wait for ever.

    Torch's lock is a file that its holder keeps open (torch.utils.file_baton), so on one machine an open file tells.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cache / "torch_extensions")
    locks = sorted(root.rglob("lock")) if root.is_dir() else []
    for lock in locks:
        holder = _find_holder(lock)
        if holder is not None:
            yield Finding("build lock", "ok", f"{lock}: process {holder} is building")
        elif _may_be_held_elsewhere(lock):
            remedy = "Wait for the build, or an hour: a build takes minutes. Then llmtrain doctor --fix"
            yield Finding("build lock", "warning", f"{lock}: nobody on this machine holds it", remedy)
        elif fix:
            lock.unlink(missing_ok=True)
            yield Finding("build lock", "ok", f"{lock}: nobody held it; removed")
        else:
            yield Finding("build lock", "problem", f"{lock}: nobody holds it", "llmtrain doctor --fix")
    if not locks:
        yield Finding("build locks", "ok", "none")


def _find_holder(lock: Path) -> int | None:
    """A process of this machine that has the file open."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # gone, or another user's
            if descriptor.samefile(lock):
                return int(descriptor.parts[2])
    return None


def _may_be_held_elsewhere(lock: Path) -> bool:
    """Whether the holder may be out of sight: a young lock of another user, or on a file system shared by machines."""
    status = lock.stat()
    if time.time() - status.st_mtime > _STALE_SECONDS:
        return False
    mounts = [part for part in psutil.disk_partitions(all=True) if lock.resolve().is_relative_to(part.mountpoint)]
    kind = max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""
    return os.geteuid() not in (0, status.st_uid) or kind.startswith(_SHARED_FILE_SYSTEMS)


def _read_metadata() -> dict[str, Any]:
    """What pip knows about llmtrain; empty when it is not installed."""
    try:
        metadata = importlib.metadata.metadata("llmtrain")
    except importlib.metadata.PackageNotFoundError:
        return {}
    return {"Requires-Python": metadata["Requires-Python"] or "", "Requires-Dist": metadata.get_all("Requires-Dist")}


def _find_torch_version() -> str:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


CHECKS: list[Callable[[], Iterator[Finding]]] = [
    check_python,
    check_packages,
    check_processors,
    check_compiler,
    check_loopback,
    check_disk,
    check_leftovers,
    check_database,
]
