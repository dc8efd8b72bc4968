"""The loop with stand-ins that only take notes: what is done when, in which order, with which numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from llmtrain.config.root import Config
from llmtrain.errors import DivergenceError
from llmtrain.optim.schedule import compute_learning_rate
from llmtrain.parallel.engine import SourceLosses, StepResult
from llmtrain.plan.build import build_plan
from llmtrain.process.signals import StopRequest
from llmtrain.training.divergence import DivergenceMonitor
from llmtrain.training.loop import TrainingRun, train
from tests.helpers.configs import load_tiny_config

Note = tuple[Any, ...]


class Notes:
    """Loader, engine, recorder, saver and watchdog in one: every call becomes a note."""

    def __init__(self, config: Config, losses: dict[int, float], stop_at: int | None) -> None:
        self.notes: list[Note] = []
        self.phases: list[tuple[str, int]] = []
        self.is_paused = False
        self._losses, self._stop_at = losses, stop_at
        self.stop = StopRequest()
        self.run = TrainingRun(
            config,
            build_plan(config, 1, 300),
            engine=cast(Any, self),
            loader=cast(Any, self),
            recorder=cast(Any, self),
            monitor=DivergenceMonitor(1.0, 2),
            stop=self.stop,
            watchdog=cast(Any, self),
            check_replicas=lambda step: self.note("check replicas", step),
            evaluate=self.evaluate,
            sample=self.sample,
            saver=cast(Any, self),
            plan_check=cast(Any, self),
        )

    def note(self, *note: Any) -> None:
        self.notes.append((*note, "paused") if self.is_paused else note)

    def load_step(self, step: int) -> list[int]:
        self.note("load", step)
        return [step]

    def train_step(self, batches: list[int], learning_rate: float, stop_requested: bool) -> StepResult:
        (step,) = batches
        self.note("step", step, learning_rate)
        loss = self._losses.get(step, 1.0)
        if loss != loss:
            raise DivergenceError(f"step {step + 1}: the loss is nan.")
        return StepResult(SourceLosses([loss], [1.0]), 0.5, stop_requested or step + 1 == self._stop_at)

    def evaluate(self) -> SourceLosses:
        self.note("evaluate")
        return SourceLosses([1.0], [1.0])

    def sample(self) -> list[tuple[str, str]]:
        self.note("sample")
        return []

    def add(self, step: int, result: StepResult, learning_rate: float) -> None:
        self.note("add", step)

    def record_validation(self, step: int, losses: SourceLosses) -> None:
        self.note("validation", step)

    def record_samples(self, step: int, samples: list[Any]) -> None:
        self.note("samples", step)

    def save(self, engine: "Notes", step: int) -> None:
        self.note("save", step)

    @property
    def step_seconds(self) -> float:
        return 0.5

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.note("watch")
        yield

    def record(self, step: int, step_seconds: float) -> None:
        self.note("plan", step, step_seconds)

    def poll(self) -> None:
        self.note("poll")

    def wait(self) -> None:
        self.note("wait")

    def enter(self, phase: str, step: int) -> None:
        self.phases.append((phase, step))

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.is_paused = True
        yield
        self.is_paused = False

    def steps(self, what: str) -> list[int]:
        return [note[1] for note in self.notes if note[0] == what]


def make_notes(
    folder: Path, *overrides: str, losses: dict[int, float] | None = None, stop_at: int | None = None
) -> Notes:
    return Notes(load_tiny_config(folder, *overrides), losses or {}, stop_at)


def test_a_step_loads_trains_and_records_with_the_learning_rate_of_its_number(tmp_path: Path) -> None:
    notes = make_notes(tmp_path)
    assert train(notes.run, 0) == 10
    config = notes.run.config
    rates = [compute_learning_rate(step, 1e-2, 10, config.schedule) for step in range(10)]
    expected = [
        [("load", step), ("watch",), ("step", step, rates[step]), ("add", step + 1), ("poll",)] for step in range(10)
    ]
    assert notes.notes[:-8] == [note for step in expected for note in step]
    assert rates[0] == 5e-3


def test_the_end_is_evaluated_sampled_and_saved_in_this_order_outside_of_the_clock(tmp_path: Path) -> None:
    notes = make_notes(tmp_path)
    train(notes.run, 0)
    assert [note for note in notes.notes if note[-1] == "paused"] == [
        ("check replicas", 10, "paused"),
        ("evaluate", "paused"),
        ("validation", 10, "paused"),
        ("sample", "paused"),
        ("samples", 10, "paused"),
        ("save", 10, "paused"),
        ("wait", "paused"),
        ("plan", 10, 0.5, "paused"),
    ]


def test_the_watchdog_hears_of_each_phase_before_it_begins(tmp_path: Path) -> None:
    notes = make_notes(tmp_path, "training.train_steps=4", "checkpoint.save_every_steps=2")
    train(notes.run, 0)
    last = [("evaluate", 4), ("sample", 4), ("save", 4), ("save", 4)]
    assert notes.phases == [("step", 1), ("step", 2), ("save", 2), ("step", 3), ("step", 4), *last]


def test_each_interval_is_kept_and_the_end_counts_once(tmp_path: Path) -> None:
    overrides = ["evaluation.evaluate_every_steps=5", "sampling.sample_every_steps=4", "checkpoint.save_every_steps=3"]
    notes = make_notes(tmp_path, *overrides)
    train(notes.run, 0)
    assert notes.steps("validation") == [5, 10]
    assert notes.steps("samples") == [4, 8, 10]
    assert notes.steps("save") == notes.steps("plan") == [3, 6, 9, 10]
    assert notes.notes.count(("wait", "paused")) == 1


def test_a_resumed_run_continues_with_the_next_step(tmp_path: Path) -> None:
    notes = make_notes(tmp_path, "checkpoint.save_every_steps=3")
    assert train(notes.run, 6) == 10
    assert notes.steps("load") == notes.steps("step") == [6, 7, 8, 9]
    assert notes.steps("save") == [9, 10]


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    notes = make_notes(tmp_path)
    assert train(notes.run, 10) == 10
    assert notes.notes == []


def test_a_stop_on_another_rank_saves_after_the_step_and_leaves(tmp_path: Path) -> None:
    notes = make_notes(tmp_path, stop_at=4)
    assert train(notes.run, 0) == 4
    assert notes.notes[-3:] == [("save", 4, "paused"), ("wait", "paused"), ("plan", 4, 0.5, "paused")]
    assert notes.steps("validation") == notes.steps("samples") == []
    assert notes.steps("step")[-1] == 3


def test_a_stop_on_this_rank_is_passed_to_the_engine(tmp_path: Path) -> None:
    notes = make_notes(tmp_path)
    notes.stop.signal_name = "SIGTERM"
    assert train(notes.run, 2) == 3
    assert notes.steps("save") == [3]


def test_a_stop_in_the_last_step_ends_as_planned(tmp_path: Path) -> None:
    notes = make_notes(tmp_path, stop_at=10)
    assert train(notes.run, 0) == 10
    assert notes.steps("validation") == [10]
    assert notes.steps("save") == [10]


@pytest.mark.parametrize("losses", [{5: float("nan")}, {4: 3.0, 5: 3.0}])
def test_a_diverged_run_records_and_saves_nothing_more(tmp_path: Path, losses: dict[int, float]) -> None:
    notes = make_notes(tmp_path, "checkpoint.save_every_steps=3", losses=losses)
    with pytest.raises(DivergenceError, match="step 6: the loss"):
        train(notes.run, 0)
    assert notes.steps("add") == [1, 2, 3, 4, 5]
    assert notes.steps("save") == [3]


def test_replicas_are_compared_at_their_interval_and_before_each_save_outside_of_the_clock(tmp_path: Path) -> None:
    notes = make_notes(tmp_path, "parallel.check_replicas_every_steps=4", "checkpoint.save_every_steps=3")
    train(notes.run, 0)
    compared = [note for note in notes.notes if note[0] == "check replicas"]
    assert compared == [("check replicas", step, "paused") for step in (3, 4, 6, 8, 9, 10)]


def test_replicas_are_never_compared_when_the_configuration_says_so(tmp_path: Path) -> None:
    notes = make_notes(tmp_path, "parallel.check_replicas_every_steps=null")
    train(notes.run, 0)
    assert notes.steps("check replicas") == []
