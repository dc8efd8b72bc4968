"""Saving and continuing with real engines on two ranks: one launch goes through every case and notes what it saw."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist

from llmtrain.checkpoint.manifest import read_manifest
from llmtrain.data.loader import Batch
from llmtrain.data.mixture import Mixture, Stage
from llmtrain.errors import LlmtrainError
from llmtrain.parallel.engine import Engine, SourceLosses
from llmtrain.parallel.layout import build_layout
from llmtrain.parallel.start import prepare_deepspeed
from llmtrain.plan.build import build_plan
from llmtrain.tracking.run_folder import RunWriter, read_metrics
from llmtrain.tracking.throughput import ThroughputMeter
from llmtrain.training.divergence import DivergenceMonitor
from llmtrain.training.recorder import Recorder
from llmtrain.training.resume import Saver
from tests.helpers.configs import load_tiny_config
from tests.helpers.ranks import run_ranks

DATA = {"tokenizer": "t" * 64, "source web": "w" * 64}
WEB = Mixture(("web",), (1000,), (Stage(0, (1,)),))


class Attempt:
    """One start of a run: engine, recorder and monitor as new, and the saver around them."""

    def __init__(self, folder: Path, *overrides: str, data: dict[str, str] = DATA, mixture: Mixture = WEB) -> None:
        config = load_tiny_config(folder, f"run.root={folder / 'runs'}", "checkpoint.keep_last=9", *overrides)
        self.plan = build_plan(config, dist.get_world_size(), 300)
        self.engine = Engine(config, self.plan, build_layout(self.plan, dist.get_rank()), torch.device("cpu"), 1)
        meter = ThroughputMeter(
            tokens_per_step=1,
            flops_per_token=1,
            peak_flops=1,
            device=torch.device("cpu"),
            read_wait_seconds=lambda: 0.0,
        )
        shards = cast(Any, {"web": SimpleNamespace(token_count=1000)})
        writer = RunWriter(config.run.folder) if dist.get_rank() == 0 else None
        self.recorder = Recorder(["web"], shards, 10, self.plan.train_steps, writer, meter)
        self.monitor = DivergenceMonitor(3.0, 50)
        self.saver = Saver(config, self.plan, self.recorder, self.monitor, data, mixture)

    def train(self, first: int, last: int) -> list[float]:
        """Steps [first, last) on data that is a function of the step."""
        losses = []
        for step in range(first, last):
            ids = torch.randint(0, 300, (8, 17), generator=torch.Generator().manual_seed(step))
            rows = ids.chunk(4)[dist.get_rank() :: 2]
            batches = [Batch(row[:, :-1], row[:, 1:], torch.zeros(2, dtype=torch.int64)) for row in rows]
            result = self.engine.train_step(batches, 1e-2, stop_requested=False)
            self.monitor.update(step + 1, result.losses.mean)
            self.recorder.add(step + 1, result, 1e-2)
            losses.append(result.losses.mean)
        return losses

    def resume(self) -> int | str:
        """The step, or the message of the refusal."""
        try:
            return self.saver.resume_or_start(self.engine)
        except LlmtrainError as error:
            return f"{type(error).__name__}: {error}"


def go_through_every_case(folder: Path) -> dict[str, Any]:
    """All ranks save, resume and are refused in turn; what this rank saw."""
    prepare_deepspeed(torch.device("cpu"))
    checkpoints = folder / "runs" / "tiny" / "checkpoints"
    seen: dict[str, Any] = {"must": Attempt(folder, "checkpoint.resume=must").resume()}
    if dist.get_rank() == 0:
        (checkpoints / "step-00000009.tmp").mkdir(parents=True)
    dist.barrier()
    first = Attempt(folder)
    seen["start"] = first.resume()
    seen["leftovers"] = sorted(path.name for path in checkpoints.iterdir())
    seen["losses"] = first.train(0, 3)
    first.recorder.record_validation(3, SourceLosses([20.0], [10.0]))
    first.saver.save(first.engine, 3)
    first.saver.poll()
    seen["state"] = (first.recorder.state(), first.monitor.state())
    seen["losses"] += first.train(3, 6)
    first.saver.save(first.engine, 6)
    first.saver.wait()
    files = {path: path.stat().st_mtime_ns for path in (checkpoints / "step-00000006").glob("*.safetensors")}
    first.saver.save(first.engine, 6)
    first.saver.wait()
    seen["not written again"] = files == {path: path.stat().st_mtime_ns for path in files}
    dist.barrier()

    seen["never"] = Attempt(folder, "checkpoint.resume=never").resume()
    seen["beyond"] = Attempt(folder, "training.train_steps=5").resume()
    seen["other data"] = Attempt(folder, data={"tokenizer": "t" * 64, "source code": "c" * 64}).resume()
    seen["other tokenizer"] = Attempt(folder, data=DATA | {"tokenizer": "o" * 64}).resume()
    other_past = Mixture(("web", "code"), (1000, 1000), (Stage(0, (1, 0)), Stage(40, (1, 1))))
    with_code = DATA | {"source code": "c" * 64}
    seen["other shares"] = Attempt(folder, data=with_code, mixture=other_past).resume()
    other_future = Mixture(("web", "code"), (1000, 1000), (Stage(0, (1, 0)), Stage(48, (1, 1))))
    seen["a stage to come"] = Attempt(folder, data=with_code, mixture=other_future).resume()
    other_positions = ("model.rope_theta=500", "batch.global_batch_size=4", "batch.micro_batch_size=1")
    seen["other positions"] = Attempt(folder, *other_positions).resume()
    seen["other model"] = Attempt(folder, "model.hidden_size=64").resume()
    if dist.get_rank() == 0:
        victim = next((checkpoints / "step-00000006").glob("*.safetensors"))
        victim.write_bytes(victim.read_bytes()[:-1])
    dist.barrier()
    second = Attempt(folder, "checkpoint.resume=must")
    seen["resumed"] = second.resume()
    seen["resumed state"] = (second.recorder.state(), second.monitor.state())
    seen["resumed losses"] = second.train(3, 6)
    second.saver.save(second.engine, 6)
    second.saver.wait()
    return seen


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("attempts")
    return folder / "runs" / "tiny", run_ranks(2, go_through_every_case, folder)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            "must",
            "CheckpointError: {0}: no checkpoint, and checkpoint.resume is 'must'. Choose checkpoint.resume=auto to "
            "start a new run.",
        ),
        (
            "never",
            "CheckpointError: {0}: holds checkpoints, and checkpoint.resume is 'never'. Choose another run.name, or "
            "checkpoint.resume=auto to continue.",
        ),
        (
            "beyond",
            "CheckpointError: {0}/step-00000006: is of step 6, and section training ends the run at step 5. Choose a "
            "longer run, or another run.name to start anew.",
        ),
        (
            "other data",
            "DataError: {0}/step-00000006: was trained on other data: source web differ by sha256 in "
            "data/tiny. Put the data back, or choose another run.name to start anew.",
        ),
        (
            "other shares",
            "DataError: {0}/step-00000006: its 48 sequences were drawn with other shares:\n"
            "  there: from sequence 0 web 1.0000\n"
            "  here: from sequence 0 web 1.0000; from sequence 40 web 0.5000, code 0.5000\n"
            "Put data.sources, data.stages and the sizes of sources without a weight back for the part of the run that "
            "is over, or choose another run.name to start anew.",
        ),
        (
            "other tokenizer",
            "DataError: {0}/step-00000006: was trained on other data: tokenizer differ by sha256 in data/tiny. Put the "
            "data back, or choose another run.name to start anew.",
        ),
        (
            "other model",
            "CheckpointError: {0}/step-00000006: was made with other values of keys that cannot change:\n"
            "  model.hidden_size: 32 there, 64 here\n"
            "Put them back to continue, or choose another run.name to start anew.",
        ),
        (
            "other positions",
            "CheckpointError: {0}/step-00000006: was made with other values of keys that cannot change:\n"
            "  batch.global_batch_size: 8 there, 4 here\n  model.rope_theta: 10000.0 there, 500.0 here\n"
            "Put them back to continue, or choose another run.name to start anew.",
        ),
    ],
)
def test_what_does_not_fit_is_refused_on_every_rank(
    case: str, message: str, attempts: tuple[Path, list[dict[str, Any]]]
) -> None:
    run_folder, seen = attempts
    assert [rank[case] for rank in seen] == [message.format(run_folder / "checkpoints")] * 2


def test_a_source_may_join_in_a_stage_that_has_not_begun(attempts: tuple[Path, list[dict[str, Any]]]) -> None:
    _, seen = attempts
    assert [rank["a stage to come"] for rank in seen] == [6, 6]


def test_a_new_run_starts_at_0_and_removes_what_a_killed_one_left(
    attempts: tuple[Path, list[dict[str, Any]]],
) -> None:
    _, seen = attempts
    assert [rank["start"] for rank in seen] == [0, 0]
    assert [rank["leftovers"] for rank in seen] == [[], []]


def test_the_newest_whole_checkpoint_brings_back_weights_sums_and_the_monitor(
    attempts: tuple[Path, list[dict[str, Any]]],
) -> None:
    _, seen = attempts
    for rank in seen:
        assert rank["resumed"] == 3
        assert rank["resumed state"] == rank["state"]
        assert rank["resumed losses"] == rank["losses"][3:]
    recorder, monitor = seen[0]["state"]
    assert recorder["steps"] == 3
    assert monitor["lowest"] == min(seen[0]["losses"][:3])


def test_a_checkpoint_tells_its_parent_and_the_validation_loss_of_its_own_step(
    attempts: tuple[Path, list[dict[str, Any]]],
) -> None:
    checkpoints = attempts[0] / "checkpoints"
    older, newer = (read_manifest(checkpoints / f"step-{step:08d}") for step in (3, 6))
    assert (older.parent, newer.parent) == (None, "step-00000003")
    assert (older.validation_loss, newer.validation_loss) == (2.0, None)
    assert (older.consumed_samples, newer.consumed_samples) == (24, 48)
    assert older.progress["data"] == DATA
    assert older.config["model"]["num_layers"] == 2


def test_a_state_that_is_saved_already_is_not_written_again(attempts: tuple[Path, list[dict[str, Any]]]) -> None:
    run_folder, seen = attempts
    assert [rank["not written again"] for rank in seen] == [True, True]
    saves = read_metrics(run_folder)["perf/checkpoint_save_seconds"]
    assert [step for step, _ in saves] == [3, 6, 6, 6]
    stalls = read_metrics(run_folder)["perf/checkpoint_stall_seconds"]
    assert [step for step, _ in stalls] == [3, 6, 6, 6]
    assert all(seconds > 0 for _, seconds in saves + stalls)


def resume_with_whole_weights_within_groups(folder: Path) -> tuple[list[float], list[float]]:
    """Losses of steps 4 to 6 under ZeRO++'s hierarchical partitioning, and of a run resumed after step 3."""
    prepare_deepspeed(torch.device("cpu"))
    overrides = ["parallel.zero_stage=3", "parallel.hierarchical_partition_size=2"]
    overrides += ["parallel.zero3_persistent_parameters_below=0"]
    first = Attempt(folder, *overrides)
    first.train(0, 3)
    first.saver.save(first.engine, 3)
    first.saver.wait()
    whole = first.train(3, 6)
    second = Attempt(folder, *overrides)
    assert second.resume() == 3
    return whole, second.train(3, 6)


def test_copies_of_weights_within_a_machine_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    for whole, resumed in run_ranks(2, resume_with_whole_weights_within_groups, tmp_path):
        assert resumed == whole
