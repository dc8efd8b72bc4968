"""`llmtrain plan --simulate-failures`: its tables, its JSON, its ends."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llmtrain.config.cluster import CLUSTER_FOLDER
from tests.helpers.door import call_door

ARGUMENTS = ["plan", "configs/pretrain/gpt3_175b.yaml", "--world-size", "4096", "--simulate-failures"]


def write_cluster(folder: Path, failures_per_device_hour: float) -> str:
    path = folder / "cluster.yaml"
    text = (CLUSTER_FOLDER / "dgx_h100.yaml").read_text()
    path.write_text(f"{text}reliability: {{failures_per_device_hour: {failures_per_device_hour}}}\n")
    return str(path)


def test_both_intervals_the_formula_and_one_play_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = call_door(ARGUMENTS, monkeypatch, capsys)
    assert code == 0
    assert "200 plays of the run, failures drawn with seed 0" in printed
    assert "configured: every 1,000 steps" in printed
    assert re.search(r"Daly's: every \d{3} steps", printed)
    assert "one play, checkpoints every 1,000 steps" in printed
    for row in ("computing done again", "restarts", "stalls of saves", "from start to end", "Daly's formula"):
        assert row in printed


def test_json_holds_the_same_and_the_seed_decides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, again, other = (
        json.loads(call_door([*ARGUMENTS, "--seed", seed, "--json"], monkeypatch, capsys)[1]) for seed in "112"
    )
    assert one == again
    simulated = one["simulated_failures"]
    assert (simulated["seed"], simulated["plays"]) == (1, 200)
    configured, recommended = simulated["intervals"]
    assert configured["save_every_steps"] == 1000
    daly = one["run"]["best_interval_seconds"] / one["step"]["step_seconds"]
    assert recommended["save_every_steps"] == round(daly)
    assert configured["finished"] == 200
    assert configured["wall_seconds"]["low"] < configured["wall_seconds"]["median"] < configured["wall_seconds"]["high"]
    assert recommended["goodput"]["median"] == pytest.approx(recommended["closed_form"]["goodput"], abs=0.01)
    assert recommended["closed_form"]["goodput"] == pytest.approx(one["run"]["best_goodput"], abs=1e-4)
    assert configured["closed_form"] == {
        "goodput": one["run"]["goodput"],
        "wall_seconds": pytest.approx(one["run"]["train_seconds"]),
    }
    assert configured["failures"]["median"] == pytest.approx(one["run"]["failures"], abs=1)
    assert configured["timeline"][0].keys() == {"at_seconds", "machine", "step", "resumed_step", "lost_seconds"}
    assert configured["timeline"] != other["simulated_failures"]["intervals"][0]["timeline"]


def test_without_failures_one_interval_is_played_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*ARGUMENTS, "checkpoint.save_every_steps=null", "--cluster", write_cluster(tmp_path, 0.0)]
    code, printed = call_door(arguments, monkeypatch, capsys)
    assert code == 0
    assert "Nothing fails: reliability.failures_per_device_hour of the cluster is 0." in printed
    assert "configured: only at the end" in printed
    assert "Daly's: " not in printed
    assert "one play" not in printed


def test_a_run_that_makes_no_progress_is_given_up_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*ARGUMENTS, "--cluster", write_cluster(tmp_path, 0.1)]
    code, printed = call_door(arguments, monkeypatch, capsys)
    assert code == 0
    assert (
        "Checkpoints every 1,000 steps: 200 of 200 plays were given up after 1,000 failures, the median of them with 0 "
        "of 95,368 steps kept." in printed
    )
    assert printed.count("never, 0.0%") == 2  # of Daly's formula: longer than a million years
    assert "A failure comes every 8.79 s; a restart takes 10.0 minutes" in printed
    assert "Lower checkpoint.save_every_steps" in printed
    _, printed = call_door([*arguments, "--json"], monkeypatch, capsys)
    configured = json.loads(printed)["simulated_failures"]["intervals"][0]
    assert (configured["finished"], configured["steps_kept"], configured["wall_seconds"]["median"]) == (0, 0, None)


def test_many_layouts_are_not_played(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = call_door([*ARGUMENTS, "--search"], monkeypatch, capsys)
    assert code == 2
    assert "--simulate-failures plays one layout, --search ranks many. Write the best one with --search --write" in (
        printed
    )


def test_plays_and_pictures_start_without_torch(tmp_path: Path) -> None:
    code = f"""
import sys
sys.argv = ["llmtrain", *{ARGUMENTS!r}, "--scaling", {str(tmp_path / "x.png")!r}]
from llmtrain.__main__ import app
app(standalone_mode=False)
assert not {{"torch", "deepspeed", "transformers", "mlflow"}} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
