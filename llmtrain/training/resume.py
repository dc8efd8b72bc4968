"""Saving and continuing: what a checkpoint holds beside weights and moments, and what must match on the way back.

A save is begun by `save` and is over when `poll` or `wait` has seen its end; the next one waits for it.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from llmtrain.checkpoint.background import BackgroundWriter, ForegroundWriter
from llmtrain.checkpoint.commit import remove_leftovers
from llmtrain.checkpoint.find import find_latest, list_checkpoints
from llmtrain.checkpoint.load import load_checkpoint
from llmtrain.checkpoint.manifest import read_manifest
from llmtrain.checkpoint.save import Destination, write_snapshot
from llmtrain.checkpoint.snapshot import HostBuffers, TrainingState, take_snapshot
from llmtrain.config.compare import find_fixed_changes, list_changes
from llmtrain.config.loader import validate
from llmtrain.config.root import Config
from llmtrain.data.mixture import Mixture
from llmtrain.errors import CheckpointError, DataError
from llmtrain.parallel.engine import Engine
from llmtrain.plan.build import Plan
from llmtrain.training.divergence import DivergenceMonitor
from llmtrain.training.recorder import Recorder

logger = logging.getLogger(__name__)

CHECKPOINTS_NAME = "checkpoints"


@dataclass
class _Save:
    """A save that has begun."""

    step: int
    started: float
    stall_seconds: float = 0.0
    save_seconds: float = 0.0


class Saver:
    """Saves the whole state of a run and brings it back; all ranks call it after the same steps."""

    def __init__(
        self,
        config: Config,
        plan: Plan,
        recorder: Recorder,
        monitor: DivergenceMonitor,
        data: Mapping[str, str],
        mixture: Mixture,
    ) -> None:
        """Keep what belongs to a checkpoint.

        Args:
            config: the resolved configuration.
            plan: batch arithmetic.
            recorder: its unfinished interval is saved.
            monitor: its state is saved.
            data: identity (sha256) of the tokenizer and of each source's shards.
            mixture: shares of the sources over the run.
        """
        self._config, self._plan, self._recorder, self._monitor = config, plan, recorder, monitor
        self._data, self._mixture = dict(data), mixture
        self._folder: Path = config.run.folder / CHECKPOINTS_NAME
        self._parent: str | None = None
        self._save: _Save | None = None
        self._buffers: HostBuffers | None = None
        self._writer: BackgroundWriter | ForegroundWriter = ForegroundWriter()
        if config.checkpoint.asynchronous:
            self._buffers = HostBuffers()
            self._writer = BackgroundWriter(
                config.watchdog.save_seconds or config.parallel.communication_timeout_seconds
            )

    def save(self, engine: Engine, step: int) -> None:
        """Begin to save, after the save before is over; a state that is already saved is not written again.

        Raises:
            CheckpointError: on all ranks, when this save or the one before failed.
        """
        self.wait()
        save = _Save(step, time.perf_counter())
        progress = {
            "recorder": self._recorder.state(),
            "monitor": self._monitor.state(),
            "data": self._data,
            "mixture": self._mixture.describe_past(step * self._plan.global_batch_size),
        }
        loss = self._recorder.validation_loss_at(step)
        state = TrainingState(step, step * self._plan.global_batch_size, loss, progress)
        snapshot = take_snapshot(engine.deepspeed, state, self._buffers)
        config = self._config.model_dump(mode="json")
        destination = Destination(self._folder, config, self._config.checkpoint, self._parent)

        def write(group: dist.ProcessGroup | None) -> Path:
            checkpoint = write_snapshot(snapshot, destination, group)
            save.save_seconds = time.perf_counter() - save.started
            return checkpoint

        self._save = save
        self._writer.start(write)
        save.stall_seconds = time.perf_counter() - save.started

    def poll(self) -> None:
        """Take note of a save that is over on all ranks.

        Raises:
            CheckpointError: on all ranks, when it failed.
        """
        self._note(self._writer.poll())

    def wait(self) -> None:
        """Wait for the save that has begun, if there is one.

        Raises:
            CheckpointError: on all ranks, when it failed.
        """
        started = time.perf_counter()
        checkpoint = self._writer.wait()
        if self._save is not None:
            self._save.stall_seconds += time.perf_counter() - started
        self._note(checkpoint)

    def close(self) -> None:
        """Let a save that has begun come to its end, whatever that is: the run ends for another reason."""
        error = self._writer.close()
        if error is not None:
            logger.warning("the last checkpoint was not saved: %s", error)

    def _note(self, checkpoint: Path | None) -> None:
        if checkpoint is not None and self._save is not None:
            self._parent = checkpoint.name
            self._recorder.record_save(self._save.step, self._save.stall_seconds, self._save.save_seconds)
            self._save = None

    def resume_or_start(self, engine: Engine) -> int:
        """Load the newest whole checkpoint if section `checkpoint` says so.

        Returns:
            Optimizer steps already taken.

        Raises:
            CheckpointError: none is whole, there is none and one must be, there is one and none may be, or it is beyond
                the end of the run.
            DataError: the data is not what the checkpoint was trained on.
        """
        if dist.get_rank() == 0:
            remove_leftovers(self._folder)
        dist.barrier()
        mode = self._config.checkpoint.resume
        if mode == "never" and list_checkpoints(self._folder):
            raise CheckpointError(
                f"{self._folder}: holds checkpoints, and checkpoint.resume is 'never'. Choose another run.name, or "
                "checkpoint.resume=auto to continue."
            )
        checkpoint = find_latest(self._folder, self._config.checkpoint.verify)
        if checkpoint is None:
            if mode == "must":
                raise CheckpointError(
                    f"{self._folder}: no checkpoint, and checkpoint.resume is 'must'. Choose checkpoint.resume=auto "
                    "to start a new run."
                )
            return 0
        self._check_config(checkpoint)
        state = load_checkpoint(checkpoint, engine.deepspeed)
        self._check_data(checkpoint, state.progress["data"])
        self._check_mixture(checkpoint, state.progress["mixture"], state.consumed_samples)
        self._recorder.load_state(state.progress["recorder"])
        self._monitor.load_state(state.progress["monitor"])
        self._parent = checkpoint.name
        logger.info("resumed from %s", checkpoint)
        return state.step

    def _check_config(self, checkpoint: Path) -> None:
        manifest = read_manifest(checkpoint)
        step = manifest.step
        changes = find_fixed_changes(validate(manifest.config, {}), self._config)
        if changes:
            raise CheckpointError(
                f"{checkpoint}: was made with other values of keys that cannot change:\n{list_changes(changes)}\n"
                "Put them back to continue, or choose another run.name to start anew."
            )
        if step > self._plan.train_steps:
            raise CheckpointError(
                f"{checkpoint}: is of step {step}, and section training ends the run at step {self._plan.train_steps}. "
                "Choose a longer run, or another run.name to start anew."
            )

    def _check_data(self, checkpoint: Path, saved: Mapping[str, Any]) -> None:
        changed = sorted(name for name in saved if saved[name] != self._data.get(name))
        if changed:
            raise DataError(
                f"{checkpoint}: was trained on other data: {', '.join(changed)} differ by sha256 in "
                f"{self._config.data.folder}. Put the data back, or choose another run.name to start anew."
            )

    def _check_mixture(self, checkpoint: Path, saved: Sequence[Mapping[str, Any]], samples: int) -> None:
        here = self._mixture.describe_past(samples)
        if here != saved:
            raise DataError(
                f"{checkpoint}: its {samples:,} sequences were drawn with other shares:\n"
                f"  there: {_list_stages(saved)}\n  here: {_list_stages(here)}\n"
                "Put data.sources, data.stages and the sizes of sources without a weight back for the part of the run "
                "that is over, or choose another run.name to start anew."
            )


def _list_stages(stages: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for stage in stages:
        total = sum(stage["weights"].values())
        shares = ", ".join(f"{name} {weight / total:.4f}" for name, weight in stage["weights"].items())
        rows.append(f"from sequence {stage['first_sample']:,} {shares}")
    return "; ".join(rows)
