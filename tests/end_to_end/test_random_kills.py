"""Ranks of a tensor x pipeline layout killed at random moments, again and again: the run ends as if nothing had been.

python -m pytest tests/end_to_end/test_random_kills.py                            three kills
LLMTRAIN_RANDOM_KILLS=20 python -m pytest tests/end_to_end/test_random_kills.py   twenty; writes its result to
                                                                                  docs/results/random_kills.json
"""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import read_curve, read_digest, run_command, start_command

RESULT = Path(__file__).parents[2] / "docs" / "results" / "random_kills.json"
NUM_RANKS = 4
SEED = 20
NUM_KILLS = int(os.environ.get("LLMTRAIN_RANDOM_KILLS", "3"))
TRAIN_STEPS = 10 * NUM_KILLS
LIMIT_SECONDS = 600.0
MOMENTS = ("save", "step", "save", "start", "save")
"""When to kill, in turn: most often while a checkpoint is written."""


def arguments_of(name: str) -> list[str]:
    layout = ["parallel.tensor_parallel_size=2", "parallel.pipeline_parallel_size=2"]
    steps = [
        f"training.train_steps={TRAIN_STEPS}",
        "checkpoint.save_every_steps=2",
        "evaluation.evaluate_every_steps=7",
    ]
    return ["pretrain", "tiny.yaml", "--nproc", str(NUM_RANKS), f"run.name={name}", *layout, *steps]


def count_starts(run_folder: Path) -> int:
    events = run_folder / "events.jsonl"
    return events.read_text().count('"started"') if events.exists() else 0


def count_steps(run_folder: Path) -> int:
    metrics = run_folder / "metrics.jsonl"
    return metrics.read_text().count('"train/loss"') if metrics.exists() else 0


def find_ranks(launcher: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]


def wait_until(is_true: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Look every millisecond; the run must not end meanwhile."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not is_true():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.001)


def wait_for_moment(moment: str, draw: random.Random, run_folder: Path, process: "subprocess.Popen[str]") -> None:
    """Return at a random moment of a start, a step or a save; the random part is drawn whatever the moment is."""
    count, delay = draw.randint(1, 3), draw.random()
    starts = count_starts(run_folder)
    wait_until(lambda: len(find_ranks(process.pid)) == NUM_RANKS, process)
    if moment == "start":
        time.sleep(8 * delay)
        return
    # Now nothing is left of the attempt before.
    wait_until(lambda: count_starts(run_folder) > starts, process)
    if moment == "step":
        first = count_steps(run_folder)
        wait_until(lambda: count_steps(run_folder) >= first + count, process)
        time.sleep(0.1 * delay)
        return
    seen: set[str] = set()

    def has_seen_enough() -> bool:
        seen.update(path.name for path in (run_folder / "checkpoints").glob("step-*.tmp"))
        return len(seen) >= count

    wait_until(has_seen_enough, process)
    time.sleep(0.01 * delay)


def kill_once(
    project: Path, arguments: list[str], run_folder: Path, moment: str, draw: random.Random
) -> dict[str, Any]:
    """One attempt that is killed; what was killed, and what it left."""
    victim = draw.randrange(NUM_RANKS)
    process = start_command(project, *arguments)
    try:
        wait_for_moment(moment, draw, run_folder, process)
        os.kill(find_ranks(process.pid)[victim], signal.SIGKILL)
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGKILL, output
    left = sorted(path.name for path in (run_folder / "checkpoints").glob("step-*"))
    return {"moment": moment, "rank": victim, "steps_recorded": count_steps(run_folder), "left": left}


@pytest.mark.timeout(600 + 180 * NUM_KILLS)
def test_a_run_killed_at_random_moments_equals_the_one_that_was_not(project: Path) -> None:
    whole = run_command(project, *arguments_of("unharmed"), timeout=LIMIT_SECONDS)
    assert whole.returncode == 0, whole.stderr
    expected = project / "runs" / "unharmed"

    arguments, run_folder = arguments_of("random_kills"), project / "runs" / "random_kills"
    draw = random.Random(SEED)
    kills = []
    for number in range(NUM_KILLS):
        kills.append(kill_once(project, arguments, run_folder, MOMENTS[number % len(MOMENTS)], draw))
    last = run_command(project, *arguments, timeout=LIMIT_SECONDS)
    assert last.returncode == 0, last.stderr
    assert "resumed from" in last.stderr

    digests = [read_digest(folder, TRAIN_STEPS) for folder in (run_folder, expected)]
    result = {
        "command": f"LLMTRAIN_RANDOM_KILLS={NUM_KILLS} python -m pytest tests/end_to_end/test_random_kills.py",
        "layout": "tensor 2 x pipeline 2, 4 ranks, gloo, float32",
        "seed": SEED,
        "train_steps": TRAIN_STEPS,
        "save_every_steps": 2,
        "kills": kills,
        "curves_equal": read_curve(run_folder) == read_curve(expected),
        "weights_digest": digests[0],
        "weights_digest_unharmed": digests[1],
    }
    if "LLMTRAIN_RANDOM_KILLS" in os.environ:
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
    assert result["curves_equal"], kills
    assert digests[0] == digests[1], kills
