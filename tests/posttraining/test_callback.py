"""What a stage writes about itself beside the trainer, and when it stops."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from llmtrain.config.root import PosttrainingConfig
from llmtrain.config.run import RunConfig
from llmtrain.config.sft import SftConfig
from llmtrain.errors import EXIT_DIVERGED, DivergenceError
from llmtrain.posttraining import callback as callback_module
from llmtrain.posttraining.callback import StageCallback, describe_line
from llmtrain.posttraining.context import StageContext
from llmtrain.process.signals import StopRequest
from llmtrain.process.world import World
from llmtrain.tracking.run_folder import RunWriter, read_lines, read_metrics

SECTION = SftConfig(learning_rate=1e-3, evaluate_every_steps=2, keep_last=1)
LOGS = {"loss": 2.0, "grad_norm": 1.5, "learning_rate": 1e-3, "epoch": 0.5, "mean_token_accuracy": 0.25}


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StageContext]:
    config = PosttrainingConfig(run=RunConfig(name="r", root=tmp_path, seed=3))
    writer = RunWriter(tmp_path / "r" / "sft")
    yield StageContext("sft", config, tmp_path / "r" / "sft", {}, World(), torch.device("cpu"), StopRequest(), writer)
    writer.close()


@pytest.fixture
def make(context: StageContext) -> Callable[..., StageCallback]:
    def make(evaluate: Callable[[int], Mapping[str, float]] = lambda step: {"validation/loss": 3.0}) -> StageCallback:
        return StageCallback(context, SECTION, evaluate)

    return make


def at(step: int, max_steps: int = 10) -> TrainerState:
    return TrainerState(global_step=step, max_steps=max_steps)


def log(callback: StageCallback, step: int, **logs: Any) -> None:
    callback.on_log(SimpleNamespace(), at(step), TrainerControl(), logs=logs)


def read_steps(context: StageContext, metric: str) -> list[int]:
    return [step for step, _ in read_metrics(context.folder).get(metric, [])]


def test_a_line_shows_the_step_and_short_names() -> None:
    metrics = {"train/loss": 2.34567, "train/grad_norm": 1.0, "perf/step_seconds": 0.125}
    assert describe_line(5, 20, metrics) == "step 5/20  loss 2.346  grad norm 1  step seconds 0.125"
    assert describe_line(5, None, {"validation/loss": 12345.6}) == "step 5  loss 1.235e+04"
    many = {f"validation/measure_{i}": float(i) for i in range(20)}
    assert describe_line(0, None, many).endswith("measure 7 7")


def test_a_log_becomes_one_line_of_names_with_two_levels(
    make: Callable[..., StageCallback], context: StageContext
) -> None:
    log(make(), 4, **LOGS, total_flos=1.0, num_tokens=5)
    (line,) = read_lines(context.folder / "metrics.jsonl")
    assert line["step"] == 4
    assert line["metrics"].pop("perf/step_seconds") > 0
    assert line["metrics"] == {
        "train/loss": 2.0,
        "train/grad_norm": 1.5,
        "train/learning_rate": 1e-3,
        "train/epoch": 0.5,
    }


def test_every_name_has_two_levels_and_none_is_taken_twice() -> None:
    ours = list(callback_module._NAMES.values())
    assert len(set(ours)) == len(ours)
    assert all(name.count("/") == 1 and " " not in name for name in ours)


@pytest.mark.parametrize("logs", [{}, {"train_runtime": 3.0, "train_loss": 2.0}, {"learning_rate": 1e-3, "epoch": 1.0}])
def test_what_a_trainer_says_besides_steps_is_not_written(
    make: Callable[..., StageCallback], context: StageContext, logs: dict[str, float]
) -> None:
    log(make(), 4, **logs)
    make().on_log(SimpleNamespace(), at(4), TrainerControl(), logs=None)
    assert read_lines(context.folder / "metrics.jsonl") == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_stage_with_17_and_names_the_key(
    make: Callable[..., StageCallback], context: StageContext, value: float
) -> None:
    with pytest.raises(DivergenceError) as caught:
        log(make(), 4, **LOGS | {"loss": value, "grad_norm": value})
    assert str(caught.value) == (
        "sft: train/loss, train/grad_norm not finite at step 4. Lower sft.learning_rate, or start again from a "
        "checkpoint."
    )
    assert caught.value.exit_code == EXIT_DIVERGED == 17
    assert read_lines(context.folder / "metrics.jsonl") == []


def test_a_held_out_loss_that_is_not_finite_ends_the_stage_as_well(
    make: Callable[..., StageCallback], context: StageContext
) -> None:
    with pytest.raises(DivergenceError, match=r"sft: validation/loss not finite at step 6. Lower sft.learning_rate"):
        make(lambda step: {"validation/loss": math.nan, "validation/kl": 0.0}).evaluate(6)
    assert read_lines(context.folder / "metrics.jsonl") == []


def test_evaluating_writes_a_line_and_gives_the_numbers(
    make: Callable[..., StageCallback], context: StageContext, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert make(lambda step: {"validation/loss": step / 2}).evaluate(6) == {"validation/loss": 3.0}
    (line,) = read_lines(context.folder / "metrics.jsonl")
    assert (line["step"], line["metrics"]) == (6, {"validation/loss": 3.0})
    assert caplog.messages == ["step 6  loss 3"]


def test_where_nothing_is_held_out_nothing_is_written(
    make: Callable[..., StageCallback], context: StageContext
) -> None:
    assert make(lambda step: {}).evaluate(6) == {}
    assert read_lines(context.folder / "metrics.jsonl") == []


def test_ranks_but_the_first_write_nothing(context: StageContext, make: Callable[..., StageCallback]) -> None:
    context.writer = None
    callback = make()
    log(callback, 4, **LOGS)
    assert callback.evaluate(4) == {"validation/loss": 3.0}
    assert not (context.folder / "metrics.jsonl").exists()
    with pytest.raises(DivergenceError):  # all of them stop
        log(callback, 5, loss=math.nan)


def test_the_model_is_measured_as_it_comes_but_not_again_on_resume(
    make: Callable[..., StageCallback], context: StageContext
) -> None:
    for step in (4, 0):
        make().on_train_begin(SimpleNamespace(), at(step), TrainerControl())
    assert read_steps(context, "validation/loss") == [0]


def test_evaluations_come_when_they_are_due_and_not_at_the_end(
    make: Callable[..., StageCallback], context: StageContext
) -> None:
    callback = make()
    for step in range(1, 7):
        callback.on_step_end(SimpleNamespace(), at(step, 6), TrainerControl())
    assert read_steps(context, "validation/loss") == [2, 4]


def test_a_signal_saves_and_stops_unless_it_was_the_last_step(
    make: Callable[..., StageCallback], context: StageContext
) -> None:
    callback, control = make(), TrainerControl()
    callback.on_step_end(SimpleNamespace(), at(3), control)
    assert not control.should_training_stop
    context.stop.signal_name = "SIGTERM"
    callback.on_step_end(SimpleNamespace(), at(3), control)
    assert control.should_save
    assert control.should_training_stop
    last = TrainerControl()
    callback.on_step_end(SimpleNamespace(), at(10), last)
    assert not last.should_training_stop


def test_the_time_of_a_step_leaves_out_evaluations(
    make: Callable[..., StageCallback], context: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def evaluate(step: int) -> dict[str, float]:
        now[0] += 50.0
        return {"validation/loss": 1.0}

    callback = make(evaluate)
    callback.on_train_begin(SimpleNamespace(), at(0), TrainerControl())
    now[0] += 3.0
    callback.evaluate(1)
    now[0] += 1.0
    log(callback, 2, loss=1.0)
    ((step, seconds),) = read_metrics(context.folder)["perf/step_seconds"]
    assert (step, seconds) == (2, 2.0)


def test_a_checkpoint_is_declared_whole_and_told(make: Callable[..., StageCallback], context: StageContext) -> None:
    for step in (2, 4):
        folder = context.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"12345")
        make().on_save(SimpleNamespace(), at(step), TrainerControl())
    assert [path.name for path in context.checkpoints.iterdir()] == ["checkpoint-4"]
    complete = json.loads((context.checkpoints / "checkpoint-4" / "complete.json").read_text())
    assert complete == {"step": 4, "world_size": 1, "zero_stage": 0, "files": {"weights": 5}}
    events = read_lines(context.folder / "events.jsonl")
    assert [(event["event"], event["step"]) for event in events] == [("saved", 2), ("saved", 4)]
