"""Two nodes with addresses of their own: two network namespaces joined by a cable. Needs root and `ip` (iproute2).

    sudo .venv/bin/python tests/multi_process/two_namespaces.py     from the project; a few minutes on two cores

Trains on one node, on two, and on two of which one is lost half-way; compares curves and weights bit for bit; writes
docs/results/two_nodes.json. The namespaces are removed at the end.
"""

import json
import platform
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from tests.helpers.commands import read_curve, read_digest, run_command  # noqa: E402
from tests.helpers.configs import write_tiny_config  # noqa: E402
from tests.helpers.nodes import kill_node, start_node, wait_for_line  # noqa: E402

NAMESPACES = {"llmtrain-node0": "10.213.0.1", "llmtrain-node1": "10.213.0.2"}
STEPS = 30
OVERRIDES = [f"training.train_steps={STEPS}", "checkpoint.save_every_steps=3"]


def ip(*arguments: str) -> str:
    """Run `ip ARGUMENTS`."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@contextmanager
def joined_namespaces() -> Iterator[None]:
    """Make both namespaces, each with its end of the cable; remove them afterwards."""
    names = list(NAMESPACES)
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", "wire", "netns", names[0], "type", "veth", "peer", "name", "wire", "netns", names[1])
        for name, address in NAMESPACES.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def prepare_project(folder: Path) -> Path:
    """A tiny run and its data."""
    package = Path(sysconfig.get_paths()["stdlib"]) / "json"
    write_tiny_config(
        folder,
        corpus={
            "sources": {"json": {"kind": "code", "paths": [str(package)], "licence": "PSF-2.0"}},
            "tokenizer": {"vocab_size": 400, "train_characters": 200_000},
            "validation_fraction": 0.3,
        },
        training={"log_every_steps": 1},
        tracking={"mlflow": False, "peak_flops": 1e12},
        sampling={"prompts": ["def "], "max_new_tokens": 8},
    )
    result = run_command(folder, "data", "prepare", "tiny.yaml")
    assert result.returncode == 0, result.stderr
    return folder


def start_nodes(project: Path, name: str) -> "list[subprocess.Popen[str]]":
    """One torchrun in each namespace; the first one's address is where ranks meet."""
    shared = {"NODES": "2", "RANKS_PER_NODE": "1", "MASTER_ADDR": next(iter(NAMESPACES.values()))}
    return [
        start_node(
            project, [f"run.name={name}", *OVERRIDES], shared | {"NODE_RANK": str(rank)}, ["ip", "netns", "exec", space]
        )
        for rank, space in enumerate(NAMESPACES)
    ]


def finish(nodes: "list[subprocess.Popen[str]]") -> None:
    """Wait for nodes that must end well."""
    outputs = [node.communicate(timeout=600)[0] for node in nodes]
    if any(node.returncode for node in nodes):
        raise SystemExit("\n".join(outputs))


def read_starts(run_folder: Path) -> list[int]:
    """The first step of each attempt."""
    lines = [json.loads(line) for line in (run_folder / "events.jsonl").read_text().splitlines()]
    return [line["first_step"] for line in lines if line["event"] == "started"]


def compare(found: Path, expected: Path) -> dict[str, bool]:
    """Whether two runs wrote the same numbers and end with the same weights."""
    return {
        "same_curve": read_curve(found) == read_curve(expected),
        "same_weights": read_digest(found, STEPS) == read_digest(expected, STEPS),
    }


def run(project: Path) -> dict[str, Any]:
    """All three runs."""
    arguments = ["pretrain", "tiny.yaml", "--nproc", "2", "run.name=one_node", *OVERRIDES]
    result = run_command(project, *arguments, timeout=600)
    assert result.returncode == 0, result.stderr
    runs = project / "runs"
    with joined_namespaces():
        started = time.monotonic()
        finish(start_nodes(project, "two_nodes"))
        seconds = time.monotonic() - started
        nodes = start_nodes(project, "lost_node")
        wait_for_line(runs / "lost_node", nodes, 12)
        kill_node(nodes[1])
        lost = time.monotonic()
        nodes[0].communicate(timeout=300)
        survivor = {"seconds_to_end": round(time.monotonic() - lost, 1), "exit_code": nodes[0].returncode}
        finish(start_nodes(project, "lost_node"))
    return {
        "two_nodes": compare(runs / "two_nodes", runs / "one_node") | {"seconds": round(seconds, 1)},
        "lost_node": compare(runs / "lost_node", runs / "one_node")
        | {"survivor": survivor, "first_step_of_each_attempt": read_starts(runs / "lost_node")},
    }


def main() -> int:
    """Run, write, and say whether all was equal."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as folder:
        found = run(prepare_project(Path(folder)))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    report = {
        "what": "two torchrun agents in two network namespaces (veth), one rank each, against one node with two ranks",
        "command": "python tests/multi_process/two_namespaces.py",
        "commit": commit.stdout.strip(),
        "machine": {"cpu": platform.machine(), "kernel": platform.release(), "torch": torch.__version__},
        "steps": STEPS,
        "addresses": list(NAMESPACES.values()),
        **found,
    }
    (ROOT / "docs" / "results" / "two_nodes.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    return 0 if all(found[key][same] for key in found for same in ("same_curve", "same_weights")) else 1


if __name__ == "__main__":
    sys.exit(main())
