"""Killed, stopped or failed: the run goes on as if nothing had happened, bit for bit."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.helpers.commands import read_curve, read_digest, run_command, start_command

STEPS = 40
OVERRIDES = [f"training.train_steps={STEPS}", "checkpoint.save_every_steps=3", "checkpoint.keep_last=3"]


def train(project: Path, name: str, *overrides: str) -> "tuple[int, str]":
    arguments = ["pretrain", "tiny.yaml", "--nproc", "2", f"run.name={name}", *OVERRIDES, *overrides]
    result = run_command(project, *arguments)
    return result.returncode, result.stderr


@pytest.fixture(scope="module")
def uninterrupted(project: Path) -> Path:
    code, text = train(project, "whole")
    assert code == 0, text
    return project / "runs" / "whole"


def wait_for_step(run_folder: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (run_folder / "metrics.jsonl").exists() and len(
            (run_folder / "metrics.jsonl").read_text().splitlines()
        ) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} did not come")


def find_ranks(launcher: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]


def copy_run(run_folder: Path, name: str) -> Path:
    copy = run_folder.with_name(name)
    shutil.copytree(run_folder, copy)
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace(f"name: {run_folder.name}", f"name: {name}"))
    return copy


def assert_same_run(found: Path, expected: Path) -> None:
    assert read_curve(found) == read_curve(expected)
    assert read_digest(found, STEPS) == read_digest(expected, STEPS)


@pytest.mark.parametrize(("victim", "step"), [(0, 8), (1, 13)])
def test_a_rank_killed_at_any_moment_leaves_no_trace(
    project: Path, uninterrupted: Path, victim: int, step: int
) -> None:
    name = f"killed{victim}"
    process = start_command(project, "pretrain", "tiny.yaml", "--nproc", "2", f"run.name={name}", *OVERRIDES)
    wait_for_step(project / "runs" / name, step)
    os.kill(find_ranks(process.pid)[victim], signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    code, text = train(project, name)
    assert code == 0, text
    assert "resumed from" in text
    assert_same_run(project / "runs" / name, uninterrupted)


def test_sigterm_saves_and_exits_75_and_the_run_goes_on(project: Path, uninterrupted: Path) -> None:
    process = start_command(project, "pretrain", "tiny.yaml", "--nproc", "2", "run.name=stopped", *OVERRIDES)
    run_folder = project / "runs" / "stopped"
    wait_for_step(run_folder, 5)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    steps = sorted(path.name for path in (run_folder / "checkpoints").glob("step-*"))
    assert steps
    assert '"stopped"' in (run_folder / "events.jsonl").read_text()
    code, text = train(project, "stopped")
    assert code == 0, text
    assert_same_run(run_folder, uninterrupted)


def test_a_damaged_checkpoint_is_passed_over(project: Path, uninterrupted: Path) -> None:
    run_folder = copy_run(uninterrupted, "damaged")
    newest = max((run_folder / "checkpoints").glob("step-*"))
    victim = next(newest.glob("*.safetensors"))
    content = bytearray(victim.read_bytes())
    content[-3] ^= 1
    victim.write_bytes(content)
    code, text = train(project, "damaged")
    assert code == 0, text
    assert "refused" in text
    assert_same_run(run_folder, uninterrupted)


def test_another_number_of_ranks_and_zero_stage_continues_within_rounding(project: Path, uninterrupted: Path) -> None:
    run_folder = copy_run(uninterrupted, "one_rank")
    for checkpoint in (run_folder / "checkpoints").glob("step-*"):
        if checkpoint.name > "step-00000036":
            shutil.rmtree(checkpoint)
    arguments = ["pretrain", "tiny.yaml", "--nproc", "1", "run.name=one_rank", *OVERRIDES, "parallel.zero_stage=3"]
    result = run_command(project, *arguments)
    assert result.returncode == 0, result.stderr
    assert "parallel.zero_stage: 1 until now, 3 from here on" in result.stderr
    assert "resumed from runs/one_rank/checkpoints/step-00000036" in result.stderr
    found, expected = read_curve(run_folder), read_curve(uninterrupted)
    assert [step for step, _ in found] == [step for step, _ in expected]
    for (_, ours), (_, theirs) in zip(found, expected, strict=True):
        for key in ours.keys() & {"train/loss", "train/grad_norm", "data/loss_json", "validation/loss"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5)
