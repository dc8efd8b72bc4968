"""Command `doctor`: what this machine has and lacks for training, each finding with its remedy.

A check is a function that gives findings; the list at the end is all there is to it. Nothing here imports torch.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

_STALE_SECONDS = 3600
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
            table.add_row(marks[finding.status], finding.subject, finding.found, finding.remedy)
        Console().print(table)
    return 3 if any(finding.status == "problem" for finding in findings) else 0


def check_python() -> Iterator[Finding]:
    """The version of Python; pip installs llmtrain on no older one than it needs."""
    yield Finding("python", "ok", platform.python_version())


def check_packages() -> Iterator[Finding]:
    """Installed packages against the bounds that llmtrain was tested with."""
    for text in importlib.metadata.requires("llmtrain") or []:
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
    cores, threads = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")
    yield Finding("CPU cores", "ok", str(cores))
    if threads is not None and int(threads) > cores:
        yield Finding(
            "OMP_NUM_THREADS", "warning", f"{threads} threads on {cores} cores", f"export OMP_NUM_THREADS={cores}"
        )
    gpus = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if not gpus:
        yield Finding("GPU", "ok", "none; training runs on the CPU")
    elif "+cpu" in importlib.metadata.version("torch"):
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
    """Checkpoints that a killed run left half-written; the next start of that run removes them."""
    for path in sorted(Path("runs").glob("*/checkpoints/*.tmp")):
        yield Finding("checkpoint", "ok", f"{path} is unfinished; the run removes it when it resumes")


def check_build_locks(fix: bool) -> Iterator[Finding]:
    """Locks of compiled extensions that nobody holds: a start that needs the extension would wait for ever."""
    default = Path.home() / ".cache" / "torch_extensions"
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR", default))
    locks = sorted(root.rglob("lock")) if root.is_dir() else []
    for lock in locks:
        age = time.time() - lock.stat().st_mtime
        if age < _STALE_SECONDS and _is_building():
            yield Finding("build lock", "ok", f"{lock}: a build is running")
        elif fix:
            lock.unlink(missing_ok=True)
            yield Finding("build lock", "ok", f"{lock}: nobody held it; removed")
        else:
            yield Finding("build lock", "problem", f"{lock}: nobody holds it", "llmtrain doctor --fix")
    if not locks:
        yield Finding("build locks", "ok", "none")


def _is_building() -> bool:
    """Whether any process on this machine runs ninja or a compiler."""
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = path.read_text().strip()
        except OSError:
            continue
        if name in ("ninja", "cc1plus", "nvcc", "g++", "c++", "clang++"):
            return True
    return False


CHECKS: list[Callable[[], Iterator[Finding]]] = [
    check_python,
    check_packages,
    check_processors,
    check_compiler,
    check_loopback,
    check_disk,
    check_leftovers,
]
