"""A rank that sleeps, or is stopped by a signal, ends the run with 124 and the message names that rank."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.commands import build_environment, run_command

ROOT = Path(__file__).parents[2]
# Long enough for a step on a machine that does much else.
LIMIT_SECONDS = 8
LIMITS = [f"watchdog.{phase}_seconds={LIMIT_SECONDS}" for phase in ("step", "evaluate", "sample", "save")]
TIMEOUT = [f"parallel.communication_timeout_seconds={2 * LIMIT_SECONDS}"]
# Runs before anything else in each Python process whose PYTHONPATH holds it.
SLEEPER = """
import os, time
if os.environ.get("RANK") == "1":
    from llmtrain.optim import schedule
    compute = schedule.compute_learning_rate
    def compute_late(step, *arguments):
        if step == 5:
            time.sleep(600)
        return compute(step, *arguments)
    schedule.compute_learning_rate = compute_late
"""


def start_run(project: Path, name: str, *overrides: str, python_path: Path = ROOT) -> "subprocess.Popen[str]":
    arguments = ["pretrain", "tiny.yaml", "--nproc", "2", f"run.name={name}", "training.train_steps=3000", *overrides]
    return subprocess.Popen(
        [sys.executable, "-m", "llmtrain", *arguments],
        cwd=project,
        env=build_environment() | {"PYTHONPATH": f"{python_path}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_steps(process: "subprocess.Popen[str]", run_folder: Path, steps: int) -> list[int]:
    """Wait until some steps were taken; returns the process ids of the ranks."""
    deadline = time.monotonic() + 120
    metrics = run_folder / "metrics.jsonl"
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < steps:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_a_rank_that_sleeps_ends_the_run_and_is_named(project: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLEEPER)
    process = start_run(project, "asleep", *LIMITS, "checkpoint.save_every_steps=2", python_path=tmp_path)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 124, output
    run_folder = project / "runs" / "asleep"
    assert "the run hung (2 of 2 ranks said where they stood)\nrank 1 on " in output
    assert (
        "in phase 'step' at step 6, not waiting for other ranks; stacks in runs/asleep/logs/hang-rank00001.txt"
        in output
    )
    assert "compute_late" in (run_folder / "logs" / "hang-rank00001.txt").read_text()
    waiting = json.loads((run_folder / "logs" / "hang-rank00000.txt").read_text().partition("\n")[0])
    assert (waiting["step"], waiting["waits_for_others"]) == (6, True)
    event = json.loads((run_folder / "events.jsonl").read_text().splitlines()[-1])
    assert (event["event"], event["step"], event["waits_for_others"]) == ("hang", 6, True)
    result = run_command(project, "pretrain", "tiny.yaml", "--nproc", "2", "run.name=asleep")
    assert result.returncode == 0, result.stderr
    assert "resumed from runs/asleep/checkpoints/step-00000004" in result.stderr


@pytest.mark.parametrize(("victim", "limits"), [(1, LIMITS), (0, LIMITS), (1, TIMEOUT)])
def test_a_stopped_rank_is_named_and_killed(victim: int, limits: list[str], project: Path) -> None:
    name = f"halted{victim}_{len(limits)}"
    process = start_run(project, name, *limits)
    ranks = wait_for_steps(process, project / "runs" / name, 6)
    os.kill(ranks[victim], signal.SIGSTOP)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 124, output
    assert f"rank {victim} (process {ranks[victim]}) is stopped by a signal" in output
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)


# The run diverges at step 5 while a save is written more slowly than a step may take.
SLOW_SAVE = f"""
import os, time
if "RANK" in os.environ:
    from llmtrain.checkpoint import save
    from llmtrain.errors import DivergenceError
    from llmtrain.training.divergence import DivergenceMonitor
    write = save.write_snapshot
    def write_late(*arguments):
        time.sleep({LIMIT_SECONDS} + 4)
        return write(*arguments)
    save.write_snapshot = write_late
    def diverge(self, step, loss):
        if step == 5:
            raise DivergenceError("loss is nan")
    DivergenceMonitor.update = diverge
"""


def test_a_run_that_diverges_while_a_save_is_written_says_so_and_keeps_the_save(project: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_SAVE)
    limits = [limit for limit in LIMITS if "save" not in limit]
    process = start_run(project, "diverged", *limits, "checkpoint.save_every_steps=4", python_path=tmp_path)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 17, output
    assert (project / "runs" / "diverged" / "checkpoints" / "step-00000004" / "manifest.json").exists()
