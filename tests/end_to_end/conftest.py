"""A small corpus of real text, prepared once through the command line, and ways to run the command line."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.configs import TINY

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def build_environment() -> dict[str, str]:
    """Of a user's shell, without what the test run itself set."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and prepared data: two packages of the standard library."""
    folder = tmp_path_factory.mktemp("project")
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    config: dict[str, Any] = {name: dict(section) for name, section in TINY.items()}
    config["corpus"] = {
        "sources": {
            name: {"kind": "code", "paths": [str(stdlib / name)], "licence": "PSF-2.0"} for name in ("json", "email")
        },
        "tokenizer": {"vocab_size": 400, "train_characters": 200_000},
        "validation_fraction": 0.3,
    }
    config["training"] |= {"log_every_steps": 1}
    config["sampling"] = {"prompts": ["def "], "max_new_tokens": 8}
    config["evaluation"] = {"sequences_per_source": 8, "evaluate_every_steps": 5}
    config["tracking"] = {"mlflow": False, "peak_flops": 1e12}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    result = run_command(folder, "data", "prepare", "tiny.yaml")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def main_run(project: Path) -> Path:
    """The run folder of the main job: ten steps on two ranks, mirrored, exported."""
    overrides = ["run.name=main", "tracking.mlflow=true", "tracking.system_interval_seconds=1"]
    result = run_command(project, "run", "tiny.yaml", "--nproc", "2", *overrides)
    assert result.returncode == 0, result.stderr
    assert "up to date" in result.stderr
    assert "bigram" in result.stdout
    assert "def " in result.stdout
    return project / "runs" / "main"


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
