"""What goes wrong at a user's place: one clear message, the documented exit code, nothing lost."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import build_environment, run_command


@pytest.fixture
def own_data(project: Path, tmp_path: Path) -> Path:
    """A copy of the project to damage."""
    copy = tmp_path / "project"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("runs"))
    return copy


def pretrain(folder: Path, *overrides: str) -> "tuple[int, str]":
    result = run_command(folder, "pretrain", "tiny.yaml", "--nproc", "1", "run.name=bad", *overrides)
    return result.returncode, result.stderr


def test_a_flipped_byte_in_a_shard_names_the_shard(own_data: Path) -> None:
    shard = own_data / "data" / "tiny" / "shards" / "json" / "train" / "shard-00000.tokens"
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    code, text = pretrain(own_data, "data.verify=full")
    assert code == 4
    assert "shard-00000.tokens: sha256 is" in text
    assert "Traceback" not in text
    verified = run_command(own_data, "data", "verify", "data/tiny")
    assert verified.returncode == 4
    assert "shard-00000.tokens: sha256 is" in verified.stderr


def test_a_truncated_shard_is_found_at_start(own_data: Path) -> None:
    shard = own_data / "data" / "tiny" / "shards" / "email" / "train" / "shard-00000.tokens"
    shard.write_bytes(shard.read_bytes()[:-100])
    code, text = pretrain(own_data)
    assert code == 4
    assert "truncated, replaced or lost" in text


def test_shards_of_another_tokenizer_are_refused(own_data: Path) -> None:
    other = run_command(
        own_data, "data", "prepare", "tiny.yaml", "data.folder=data/other", "corpus.tokenizer.vocab_size=380"
    )
    assert other.returncode == 0, other.stderr
    shutil.rmtree(own_data / "data" / "tiny" / "tokenizer")
    shutil.copytree(own_data / "data" / "other" / "tokenizer", own_data / "data" / "tiny" / "tokenizer")
    code, text = pretrain(own_data)
    assert code == 4
    assert "was made with tokenizer" in text


def test_data_that_is_not_there_says_how_to_make_it(own_data: Path) -> None:
    code, text = pretrain(own_data, "data.folder=data/nothing")
    assert code == 4
    assert "llmtrain data prepare CONFIG" in text


def test_impossible_batch_arithmetic_is_refused_before_any_rank_starts(own_data: Path) -> None:
    result = run_command(own_data, "pretrain", "tiny.yaml", "--nproc", "3", "run.name=bad")
    assert result.returncode == 2
    assert "Start 1, 2 or 4 data-parallel ranks" in result.stderr
    assert not (own_data / "runs").exists()


def test_an_infeasible_mixture_is_refused_before_the_first_step(own_data: Path) -> None:
    code, text = pretrain(own_data, "data.sources.json.max_epochs=0.001", "data.sources.email.max_epochs=9")
    assert code == 4
    assert "data.sources.json" in text
    assert "max_epochs is 0.001" in text
    assert "Traceback" not in text


def test_a_diverging_run_stops_with_17_and_keeps_its_last_checkpoint(own_data: Path) -> None:
    overrides = ["optimizer.learning_rate=1e30", "schedule.warmup_steps=0", "checkpoint.save_every_steps=1"]
    code, text = pretrain(own_data, *overrides)
    assert code == 17
    assert "is nan" in text or "is inf" in text
    assert "Traceback" not in text
    events = [json.loads(line) for line in (own_data / "runs" / "bad" / "events.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "diverged"


def test_a_disk_that_fills_up_stops_the_run_with_one_message(own_data: Path) -> None:
    # No file may grow beyond 6 KiB: the configuration and the metrics of some steps fit.
    command = "pretrain tiny.yaml run.name=full training.train_steps=200 checkpoint.save_every_steps=null"
    limited = f'ulimit -f 6 && exec "{sys.executable}" -m llmtrain {command}'
    result = subprocess.run(
        ["bash", "-c", limited], cwd=own_data, env=build_environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 3
    assert "runs/full/metrics.jsonl: cannot be written: File too large. Free some space" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_tracking_server_that_is_away_costs_nothing_and_is_replayed_later(own_data: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    away = [f"tracking.tracking_uri=http://127.0.0.1:{port}", "tracking.mlflow=true"]
    code, text = pretrain(own_data, *away)
    assert code == 0, text
    assert "tracking sync" in text
    run_folder = own_data / "runs" / "bad"
    config = run_folder / "config.yaml"
    config.write_text(config.read_text().replace(f"http://127.0.0.1:{port}", f"sqlite:///{own_data}/later.db"))
    synced = run_command(own_data, "tracking", "sync", "runs/bad")
    assert synced.returncode == 0, synced.stderr

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{own_data}/later.db")
    run_id = json.loads((run_folder / "mlflow.json").read_text())["run_id"]
    losses = [(metric.step, metric.value) for metric in client.get_metric_history(run_id, "train/loss")]
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    expected = [(line["step"], line["metrics"]["train/loss"]) for line in lines if "train/loss" in line["metrics"]]
    assert sorted(losses) == expected


def test_generation_and_export_without_a_run_name_what_is_missing(own_data: Path) -> None:
    for arguments in (["generate", "runs/none", "--prompt", "x"], ["export", "runs/none"]):
        result = run_command(own_data, *arguments)
        assert result.returncode == 2
        assert "no run here" in result.stderr


def test_a_checkpoint_that_cannot_be_written_stops_the_run_with_5_soon_after(own_data: Path) -> None:
    run_folder = own_data / "runs" / "bad"
    run_folder.mkdir(parents=True)
    (run_folder / "checkpoints").write_text("in the way")
    overrides = ["training.train_steps=2000", "checkpoint.save_every_steps=3", "run.name=bad"]
    overrides += ["evaluation.evaluate_every_steps=null"]
    result = run_command(own_data, "pretrain", "tiny.yaml", "--nproc", "2", *overrides)
    assert result.returncode == 5
    message = "runs/bad/checkpoints/step-00000003.tmp: rank 0 could not write it: "
    for text in (result.stderr, (run_folder / "logs" / "rank00001.log").read_text()):
        assert message in text
        assert "Older checkpoints are whole, nothing of this one is left." in text
        assert "Traceback" not in text
    steps = [json.loads(line)["step"] for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] < 2000
