"""A stage that is killed goes on from its last whole checkpoint and ends with the same weights, bit for bit."""

import json
import random
import signal
import time
from pathlib import Path

import pytest

from tests.helpers.commands import run_command, start_command
from tests.posttraining.stage_files import read_numbers, run_stage, write_stage_config

# Steps enough to be killed in.
LONGER = {"sft": "sft.train_epochs=8", "reward": "reward.train_epochs=4", "ppo": "ppo.train_steps=8"}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, model_folders: dict[str, Path], conversations_file: Path
) -> Path:
    """All stages, not interrupted."""
    folder = tmp_path_factory.mktemp("resume")
    write_stage_config(folder, model_folders["gpt2"], conversations_file)
    for stage, steps in LONGER.items():
        run_stage(folder, stage, steps)
    return folder


def read_events(folder: Path) -> list[str]:
    path = folder / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["event"] for line in lines]


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_a_killed_stage_ends_with_the_same_bits(finished: Path, stage: str) -> None:
    overrides = [f"run.name=killed-{stage}", LONGER[stage]]
    if stage != "sft":
        overrides.append(f"{stage}.model=runs/one/sft/model")
    if stage == "ppo":
        overrides.append("ppo.rewards={model: {kind: model, path: runs/one/reward/model}}")
    folder = finished / "runs" / f"killed-{stage}" / stage
    process = start_command(finished, stage, "stages.yaml", *overrides)
    deadline = time.monotonic() + 120
    while "saved" not in read_events(folder) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.Random(stage).random() * 0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert "finished" not in read_events(folder)
    run_stage(finished, stage, *overrides)
    base = finished / "runs" / "one" / stage
    names = ["model", "value_model"] if stage == "ppo" else ["model"]
    for name in names:
        weights = [root / name / "model.safetensors" for root in (base, folder)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    assert read_numbers(folder) == read_numbers(base)
    assert read_events(folder).count("started") == 2


def test_a_finished_stage_is_not_run_again(finished: Path) -> None:
    before = (finished / "runs" / "one" / "sft" / "metrics.jsonl").read_bytes()
    result = run_command(finished, "sft", "stages.yaml", LONGER["sft"])
    assert result.returncode == 0
    assert "finished before" in result.stderr
    assert (finished / "runs" / "one" / "sft" / "metrics.jsonl").read_bytes() == before


def test_a_stage_of_other_inputs_is_refused_by_name(finished: Path) -> None:
    result = run_command(finished, "sft", "stages.yaml", LONGER["sft"], "sft.learning_rate=0.5")
    assert result.returncode == 2
    assert "holds a stage made from other inputs: sft.learning_rate: 0.001 there, 0.5 here" in result.stderr
    assert "Choose another run.name" in result.stderr


def test_a_signal_saves_and_ends_with_75_and_the_stage_goes_on(finished: Path) -> None:
    overrides = ["run.name=stopped", "sft.train_epochs=40"]
    folder = finished / "runs" / "stopped" / "sft"
    process = start_command(finished, "sft", "stages.yaml", *overrides)
    deadline = time.monotonic() + 120
    while "saved" not in read_events(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 75
    assert read_events(folder)[-1] == "stopped"
    run_stage(finished, "sft", *overrides)
    assert read_events(folder)[-1] == "finished"
