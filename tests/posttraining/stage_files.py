"""A small configuration of all post-training stages, for tests that run them through the command line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.helpers.commands import build_environment, run_command

JUDGE = '''"""Counts different words."""


def score(prompts: list[str], responses: list[str]) -> list[float]:
    return [len(set(r.split())) / 4 + 0.1 * len(r) / (1 + len(p)) for p, r in zip(prompts, responses)]
'''
GENERATION = {"max_new_tokens": 12}


def write_stage_config(folder: Path, model: Path, conversations: Path) -> Path:
    """The file, beside the judge that it names."""
    (folder / "judge.py").write_text(JUDGE)
    shared: dict[str, Any] = {
        # With less, an element whose gradient is nothing but rounding would move as far as any other.
        "epsilon": 1e-5,
        "micro_batch_size": 2,
        "global_batch_size": 4,
        "validation_fraction": 0.2,
        "log_every_steps": 1,
        "save_every_steps": 2,
    }
    values = {
        "run": {"name": "one", "seed": 3},
        "sft": {
            **shared,
            "model": str(model),
            "data": {"chat": {"paths": [str(conversations)]}},
            "learning_rate": 1e-3,
            "train_epochs": 2,
        },
        "reward": {
            **shared,
            "learning_rate": 1e-3,
            "sampled": {"label": {"file": "judge.py"}, "pairs": 24, "generation": GENERATION},
        },
        "ppo": {
            **shared,
            "global_batch_size": 8,
            "mini_batches": 2,
            "epochs": 2,
            "train_steps": 4,
            "learning_rate": 1e-3,
            "gold": {"file": "judge.py"},
            "generation": GENERATION,
            "num_generations": 2,
        },
        "tracking": {"mlflow": False},
    }
    path = folder / "stages.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run_stage(folder: Path, stage: str, *arguments: str) -> None:
    """Run one stage; it must end well."""
    result = run_command(folder, stage, "stages.yaml", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def run_stage_by_nproc(folder: Path, stage: str, *arguments: str) -> None:
    """Run one stage on two ranks that `llmtrain` starts; it must end well."""
    run_stage(folder, stage, "--nproc", "2", *arguments)


def run_stage_by_torchrun(folder: Path, stage: str, *arguments: str) -> None:
    """Run one stage on two ranks that torchrun starts; it must end well."""
    result = run_torchrun(folder, "llmtrain", stage, "stages.yaml", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def run_torchrun(folder: Path, module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a module as two ranks of torchrun."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    return subprocess.run(
        [*torchrun, "--module", module, *arguments],
        cwd=folder,
        env=build_environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


LAUNCHERS: dict[str, Callable[..., None]] = {"nproc": run_stage_by_nproc, "torchrun": run_stage_by_torchrun}


def read_numbers(stage_folder: Path) -> list[tuple[int, str, float]]:
    """Every metric that does not depend on the clock."""
    lines = [json.loads(line) for line in (stage_folder / "metrics.jsonl").read_text().splitlines()]
    return [
        (line["step"], name, value)
        for line in lines
        for name, value in sorted(line["metrics"].items())
        if not name.startswith("perf/")
    ]
