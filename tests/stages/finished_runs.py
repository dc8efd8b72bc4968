"""Folders of finished runs for tests: what pretraining leaves, without training."""

import json
from pathlib import Path

from llmtrain.config.loader import dump_config
from llmtrain.plan.build import build_plan
from llmtrain.plan.workload import Workload, build_workload
from tests.helpers.configs import load_tiny_config

VOCAB_SIZE = 300


def load_run_workload(folder: Path, world_size: int, *overrides: str) -> Workload:
    """The workload of the tiny configuration with overrides."""
    config = load_tiny_config(folder, f"model.vocab_size={VOCAB_SIZE}", *overrides)
    return build_workload(config, build_plan(config, world_size, VOCAB_SIZE))


def write_finished_run(
    folder: Path, name: str, world_size: int, seconds: list[float], *overrides: str, device: str | None = None
) -> Path:
    """A run that took so many seconds for a step in its intervals, behind a first one that took a minute.

    Args:
        folder: that will hold the run folder.
        name: of the run.
        world_size: ranks it was made by.
        seconds: of a step, in each interval.
        overrides: of the tiny configuration.
        device: as the summary tells it; None = one that does not.
    """
    config = load_tiny_config(folder, f"model.vocab_size={VOCAB_SIZE}", "data.folder=absent", *overrides)
    plan = build_plan(config, world_size, VOCAB_SIZE)
    run = folder / name
    run.mkdir()
    (run / "config.yaml").write_text(dump_config(config))
    summary = {
        "world_size": world_size,
        "parameters": plan.shape.num_parameters,
        "versions": {"torch": "2.13.0+cpu" if device != "cuda" else "2.13.0+cu128"},
        **({"device": device} if device else {}),
    }
    (run / "summary.json").write_text(json.dumps(summary))
    write_intervals(run, [60.0, *seconds], first_step=0)
    return run


def write_intervals(run: Path, seconds: list[float], first_step: int) -> None:
    """Append one attempt of a run, which logs every ten steps."""
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps({"event": "started", "first_step": first_step}) + "\n")
    with (run / "metrics.jsonl").open("a") as file:
        for number, value in enumerate(seconds, 1):
            line = {"step": first_step + 10 * number, "metrics": {"perf/step_seconds": value}}
            file.write(json.dumps(line) + "\n")
