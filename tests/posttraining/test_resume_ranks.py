"""A stage on two ranks that is killed goes on from its last whole checkpoint and ends with the same bits."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.helpers.commands import start_command
from tests.posttraining.stage_files import read_numbers, run_stage_by_nproc, run_torchrun, write_stage_config

# Steps enough to be killed in; each way to share a model among ranks once.
LONGER = {
    "sft": ["sft.zero_stage=3", "sft.train_epochs=4"],
    "reward": ["reward.zero_stage=0", "reward.train_epochs=3"],
    "ppo": ["ppo.zero_stage=2", "ppo.train_steps=8"],
}
# Each test starts ranks two or three times, and the first one makes what they are compared with.
pytestmark = pytest.mark.timeout(900)
# Ranks that lose another one get 20 s to notice; the launcher ends them then.
LIMIT_SECONDS = 60


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, model_folders: dict[str, Path], conversations_file: Path
) -> Path:
    """All stages on two ranks, not interrupted."""
    folder = tmp_path_factory.mktemp("resume_ranks")
    write_stage_config(folder, model_folders["gpt2"], conversations_file)
    for stage, overrides in LONGER.items():
        run_stage_by_nproc(folder, stage, *overrides)
    return folder


def read_events(folder: Path) -> list[dict[str, object]]:
    path = folder / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def count_events(folder: Path, name: str) -> int:
    return sum(event["event"] == name for event in read_events(folder))


def list_overrides(stage: str, name: str) -> list[str]:
    """The stage once more under another name, from the same parents."""
    overrides = [f"run.name={name}", *LONGER[stage]]
    if stage != "sft":
        overrides.append(f"{stage}.model=runs/one/sft/model")
    if stage == "ppo":
        overrides.append("ppo.rewards={model: {kind: model, path: runs/one/reward/model}}")
    return overrides


def kill_after_a_save(
    finished: Path, stage: str, name: str, kill: Callable[["subprocess.Popen[str]", list[psutil.Process]], None]
) -> tuple[int, str]:
    """Start the stage on two ranks, kill what `kill` kills at a random moment after a save; what the launcher said."""
    folder = finished / "runs" / name / stage
    process = start_command(finished, stage, "stages.yaml", "--nproc", "2", *list_overrides(stage, name))
    deadline = time.monotonic() + 240
    while not count_events(folder, "saved"):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(random.Random(stage).random() * 0.05)
    ranks = psutil.Process(process.pid).children()
    assert len(ranks) == 2
    kill(process, ranks)
    output, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert psutil.wait_procs(ranks, timeout=LIMIT_SECONDS)[1] == []
    assert not count_events(folder, "finished")
    return process.returncode, output


def check_same_bits(finished: Path, stage: str, name: str) -> None:
    """Weights and every number of the run are those of the one that was not interrupted."""
    base, folder = finished / "runs" / "one" / stage, finished / "runs" / name / stage
    for model in ["model", "value_model"] if stage == "ppo" else ["model"]:
        weights = [root / model / "model.safetensors" for root in (base, folder)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    assert read_numbers(folder) == read_numbers(base)
    assert count_events(folder, "finished") == 1


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_all_ranks_killed_at_once(finished: Path, stage: str) -> None:
    name = f"all-{stage}"
    # The kernel kills ranks whose launcher is gone.
    kill_after_a_save(finished, stage, name, lambda process, ranks: process.send_signal(signal.SIGKILL))
    run_stage_by_nproc(finished, stage, *list_overrides(stage, name))
    assert read_events(finished / "runs" / name / stage)[-1]["event"] == "finished"
    check_same_bits(finished, stage, name)


def test_one_rank_killed_ends_the_other_with_a_message(finished: Path) -> None:
    def kill_rank_1(process: "subprocess.Popen[str]", ranks: list[psutil.Process]) -> None:
        next(rank for rank in ranks if rank.environ()["RANK"] == "1").kill()

    code, output = kill_after_a_save(finished, "reward", "one-reward", kill_rank_1)
    assert code == 128 + signal.SIGKILL
    assert "rank 1 of 2 was killed by SIGKILL" in output
    assert "Traceback" not in output
    run_stage_by_nproc(finished, "reward", *list_overrides("reward", "one-reward"))
    check_same_bits(finished, "reward", "one-reward")


def test_killed_between_writing_a_checkpoint_and_declaring_it_whole(finished: Path) -> None:
    overrides = list_overrides("ppo", "torn")
    checkpoints = finished / "runs" / "torn" / "ppo" / "checkpoints"
    for moment, step, whole in (("torn", 4, [2]), ("whole", 8, [6, 8])):
        result = run_torchrun(
            finished, "tests.posttraining.dying_stage", moment, str(step), "ppo", "stages.yaml", *overrides
        )
        assert result.returncode == 1
        assert (checkpoints / f"checkpoint-{step}").is_dir()
        assert [
            int(path.parent.name.partition("-")[2]) for path in sorted(checkpoints.glob("*/complete.json"))
        ] == whole
    run_stage_by_nproc(finished, "ppo", *overrides)
    first_steps = [event["first_step"] for event in read_events(checkpoints.parent) if event["event"] == "started"]
    assert first_steps == [0, 2, 8]
    check_same_bits(finished, "ppo", "torn")
