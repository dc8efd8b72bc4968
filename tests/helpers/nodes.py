"""Nodes of a run: each is a torchrun of its own, started by launch/torchrun.sh."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.helpers.commands import build_environment

ROOT = Path(__file__).parents[2]


def pick_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_node(
    project: Path, overrides: Sequence[str], variables: dict[str, str], prefix: Sequence[str] = ()
) -> "subprocess.Popen[str]":
    """Start launch/torchrun.sh on `tiny.yaml`, with its variables, behind a prefix of the command."""
    environment = build_environment() | {"PYTHONPATH": str(ROOT)} | variables
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        [*prefix, "bash", str(ROOT / "launch" / "torchrun.sh"), "tiny.yaml", *overrides],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def find_workers(node: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The ranks of a node, in their order."""
    children = psutil.Process(node.pid).children(recursive=True)
    ranks = [child for child in children if "llmtrain" in child.cmdline() and "RANK" in child.environ()]
    return sorted(ranks, key=lambda process: int(process.environ()["RANK"]))


def kill_node(node: "subprocess.Popen[str]") -> None:
    """Kill a node as a power cut does: torchrun and everything it started, at once."""
    top = psutil.Process(node.pid)
    for process in [top, *top.children(recursive=True)]:
        process.send_signal(signal.SIGKILL)
    node.communicate()


def wait_for_line(run_folder: Path, nodes: Sequence["subprocess.Popen[str]"], lines: int) -> None:
    """Wait until metrics have that many lines; all nodes must be alive until then."""
    deadline = time.monotonic() + 200
    metrics = run_folder / "metrics.jsonl"
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < lines:
        for node in nodes:
            assert node.poll() is None, node.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
