import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from rich.console import Console

from llmtrain.parallel.engine import SourceLosses, StepResult
from llmtrain.tracking.console import TrainingConsole
from llmtrain.tracking.run_folder import RunWriter, read_lines, read_metrics
from llmtrain.tracking.throughput import ThroughputMeter
from llmtrain.training.recorder import Recorder

SHARDS = {"web": SimpleNamespace(token_count=100), "code": SimpleNamespace(token_count=50)}


def build_recorder(folder: Path | None, log_every_steps: int = 2, train_steps: int = 5) -> Recorder:
    meter = ThroughputMeter(
        tokens_per_step=30,
        flops_per_token=1.0,
        peak_flops=1.0,
        device=torch.device("cpu"),
        read_wait_seconds=lambda: 0.0,
    )
    writer = None if folder is None else RunWriter(folder)
    return Recorder(["web", "code"], cast(Any, SHARDS), log_every_steps, train_steps, writer, meter)


def result(web: tuple[float, float], code: tuple[float, float], grad_norm: float = 1.0) -> StepResult:
    """Sums and token counts by source."""
    return StepResult(SourceLosses([web[0], code[0]], [web[1], code[1]]), grad_norm, stop_requested=False)


RESULTS = [
    result((60.0, 20), (10.0, 10), 1.0),
    result((30.0, 10), (40.0, 20), 3.0),
    result((0.0, 0), (30.0, 30), 2.0),
    result((0.0, 0), (60.0, 30), 4.0),
    result((90.0, 30), (0.0, 0), 5.0),
]


def add_all(recorder: Recorder, first: int = 0, last: int = 5) -> None:
    for step in range(first, last):
        recorder.add(step + 1, RESULTS[step], learning_rate=(step + 1) / 10)


def read_curve(folder: Path) -> dict[str, list[tuple[int, float]]]:
    return {name: points for name, points in read_metrics(folder).items() if not name.startswith("perf/")}


def test_an_interval_holds_means_over_its_tokens_and_the_last_learning_rate(tmp_path: Path) -> None:
    add_all(build_recorder(tmp_path))
    curve = read_curve(tmp_path)
    assert curve["train/loss"] == [(2, 140 / 60), (4, 90 / 60), (5, 3.0)]
    assert curve["data/loss_code"] == [(2, 50 / 30), (4, 90 / 60)]
    assert curve["train/grad_norm"] == [(2, 2.0), (4, 3.0), (5, 5.0)]
    assert curve["train/learning_rate"] == [(2, 0.2), (4, 0.4), (5, 0.5)]
    assert curve["train/tokens"] == [(2, 60.0), (4, 120.0), (5, 150.0)]


def test_a_source_without_tokens_has_no_loss_in_that_interval_but_always_its_epochs(tmp_path: Path) -> None:
    add_all(build_recorder(tmp_path))
    curve = read_curve(tmp_path)
    assert [step for step, _ in curve["data/loss_web"]] == [2, 5]
    assert curve["data/epoch_web"] == [(2, 0.3), (4, 0.3), (5, 0.6)]
    assert curve["data/epoch_code"] == [(2, 0.6), (4, 1.8), (5, 1.8)]


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_resumed_recorder_writes_the_lines_of_one_that_was_never_stopped(tmp_path: Path, stop: int) -> None:
    add_all(build_recorder(tmp_path / "whole"))
    first = build_recorder(tmp_path / "resumed")
    add_all(first, 0, stop)
    state = json.loads(json.dumps(first.state()))
    second = build_recorder(tmp_path / "resumed")
    second.load_state(state)
    add_all(second, stop)
    assert read_curve(tmp_path / "resumed") == read_curve(tmp_path / "whole")
    assert state == first.state()


def test_validation_is_written_by_source_and_known_for_its_step_only(tmp_path: Path) -> None:
    recorder = build_recorder(tmp_path)
    assert recorder.validation_loss_at(4) is None
    recorder.record_validation(4, SourceLosses([30.0, 10.0], [10.0, 10.0]))
    assert read_curve(tmp_path) == {
        "validation/loss": [(4, 2.0)],
        "validation/loss_web": [(4, 3.0)],
        "validation/loss_code": [(4, 1.0)],
    }
    assert recorder.validation_loss_at(4) == 2.0
    assert recorder.validation_loss_at(5) is None


def test_a_number_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    recorder = build_recorder(tmp_path, log_every_steps=1)
    recorder.add(1, result((30.0, 10), (10.0, 10), float("inf")), 0.1)
    assert "train/grad_norm" not in read_curve(tmp_path)
    assert read_curve(tmp_path)["train/loss"] == [(1, 2.0)]


def test_samples_and_the_time_of_a_save_are_written(tmp_path: Path) -> None:
    recorder = build_recorder(tmp_path)
    recorder.record_samples(3, [("a", "b"), ("c", "d")])
    recorder.record_save(3, 0.25, 1.5)
    lines = read_lines(tmp_path / "samples.jsonl")
    assert [(line["step"], line["prompt"], line["text"]) for line in lines] == [(3, "a", "b"), (3, "c", "d")]
    metrics = read_metrics(tmp_path)
    assert metrics["perf/checkpoint_stall_seconds"] == [(3, 0.25)]
    assert metrics["perf/checkpoint_save_seconds"] == [(3, 1.5)]


def test_a_rank_that_does_not_write_keeps_the_same_sums(tmp_path: Path) -> None:
    silent, writing = build_recorder(None), build_recorder(tmp_path)
    for recorder in (silent, writing):
        add_all(recorder, 0, 3)
        recorder.record_validation(3, SourceLosses([1.0, 1.0], [1.0, 1.0]))
        recorder.record_samples(3, [("a", "b")])
        recorder.record_save(3, 0.25, 1.5)
        recorder.close()
    assert silent.state() == writing.state()
    assert silent.state()["steps"] == 1
    assert silent.validation_loss_at(3) == 1.0


def test_people_see_every_line_samples_and_validation(tmp_path: Path) -> None:
    recorder = build_recorder(tmp_path)
    with (tmp_path / "console").open("w") as file:
        recorder.console = TrainingConsole(0, 5, Console(file=file, width=200))
        add_all(recorder)
        recorder.record_validation(5, SourceLosses([30.0, 10.0], [10.0, 10.0]))
        recorder.record_samples(5, [("def ", "f[0]\n")])
        recorder.close()
    lines = (tmp_path / "console").read_text().splitlines()
    assert [line.split("  ")[0] for line in lines if "grad norm" in line] == ["step 2/5", "step 4/5", "step 5/5"]
    assert "loss 2.3333  grad norm 2.000  lr 2.00e-01" in lines[0]
    assert "step 5: validation loss 2.0000 (web 3.0000, code 1.0000)" in lines
    assert "step 5: sample 'def ' -> 'f[0]\\n'" in lines
