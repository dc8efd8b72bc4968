"""Ways to run the command line as a user would, and to read what a run left."""

import json
import os
import subprocess
import sys
from pathlib import Path


def build_environment() -> dict[str, str]:
    """Of a user's shell, without what the test run itself set."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}


def run_command(folder: Path, *arguments: str, timeout: float = 240) -> "subprocess.CompletedProcess[str]":
    """Run `llmtrain ARGUMENTS` in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "llmtrain", *arguments],
        cwd=folder,
        env=build_environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start_command(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start `llmtrain ARGUMENTS` in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "llmtrain", *arguments],
        cwd=folder,
        env=build_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_curve(run_folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Every line of metrics without what depends on the clock."""
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    kept = ("train/", "data/", "validation/")
    rows = [(line["step"], {k: v for k, v in line["metrics"].items() if k.startswith(kept)}) for line in lines]
    return [row for row in rows if row[1]]


def read_digest(run_folder: Path, step: int) -> str:
    """Digest of the weights of a checkpoint."""
    manifest = json.loads((run_folder / "checkpoints" / f"step-{step:08d}" / "manifest.json").read_text())
    digest: str = manifest["weights_digest"]
    return digest
