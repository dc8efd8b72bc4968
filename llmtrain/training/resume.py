"""Saving and continuing: what a checkpoint holds beside weights and moments, and what must match on the way back."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from llmtrain.checkpoint.commit import remove_leftovers
from llmtrain.checkpoint.find import find_latest, list_checkpoints
from llmtrain.checkpoint.load import load_checkpoint
from llmtrain.checkpoint.manifest import read_manifest
from llmtrain.checkpoint.save import TrainingState, save_checkpoint
from llmtrain.config.root import Config
from llmtrain.errors import CheckpointError, DataError
from llmtrain.parallel.engine import Engine
from llmtrain.plan.build import Plan
from llmtrain.training.divergence import DivergenceMonitor
from llmtrain.training.recorder import Recorder

logger = logging.getLogger(__name__)

CHECKPOINTS_NAME = "checkpoints"


class Saver:
    """Saves the whole state of a run and brings it back; all ranks call it."""

    def __init__(
        self, config: Config, plan: Plan, recorder: Recorder, monitor: DivergenceMonitor, data: Mapping[str, str]
    ) -> None:
        """Keep what belongs to a checkpoint.

        Args:
            config: the resolved configuration.
            plan: batch arithmetic.
            recorder: its unfinished interval is saved.
            monitor: its state is saved.
            data: identity (sha256) of the tokenizer and of each source's shards.
        """
        self._config, self._plan, self._recorder, self._monitor = config, plan, recorder, monitor
        self._data = dict(data)
        self._folder: Path = config.run.folder / CHECKPOINTS_NAME
        self._parent: str | None = None

    def save(self, engine: Engine, step: int) -> None:
        """Commit a checkpoint; a state that is already saved is not written again."""
        started = time.perf_counter()
        progress = {"recorder": self._recorder.state(), "monitor": self._monitor.state(), "data": self._data}
        checkpoint = save_checkpoint(
            self._folder,
            engine.deepspeed,
            TrainingState(step, step * self._plan.global_batch_size, self._recorder.validation_loss_at(step), progress),
            config=self._config.model_dump(mode="json"),
            retention=self._config.checkpoint,
            parent=self._parent,
        )
        self._parent = checkpoint.name
        self._recorder.record_save(step, time.perf_counter() - started)

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
        self._check_horizon(checkpoint)
        state = load_checkpoint(checkpoint, engine.deepspeed)
        self._check_data(checkpoint, state.progress["data"])
        self._recorder.load_state(state.progress["recorder"])
        self._monitor.load_state(state.progress["monitor"])
        self._parent = checkpoint.name
        logger.info("resumed from %s", checkpoint)
        return state.step

    def _check_horizon(self, checkpoint: Path) -> None:
        step = read_manifest(checkpoint).step
        if step > self._plan.train_steps:
            raise CheckpointError(
                f"{checkpoint}: is of step {step}, and section training ends the run at step {self._plan.train_steps}. "
                "Choose a longer run, or another run.name to start anew."
            )

    def _check_data(self, checkpoint: Path, saved: Mapping[str, Any]) -> None:
        changed = sorted(name for name in saved.keys() | self._data.keys() if saved.get(name) != self._data.get(name))
        if changed:
            raise DataError(
                f"{checkpoint}: was trained on other data: {', '.join(changed)} differ by sha256 in "
                f"{self._config.data.folder}. Put the data back, or choose another run.name to start anew."
            )
