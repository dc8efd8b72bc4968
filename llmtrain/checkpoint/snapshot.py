"""What a checkpoint will hold, taken from an engine between two steps without any talk between ranks.

In: a DeepSpeed engine and what the loop knows. Out: a `Snapshot`, which no later step changes when it was copied into
`HostBuffers`, and which is views into the engine when it was not.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from llmtrain.checkpoint import fragments
from llmtrain.checkpoint.fragments import Fragment

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


@dataclass(frozen=True)
class TrainingState:
    """Where a run stands, as far as the engine does not know it.

    The sample order and the learning rate are functions of these numbers, so nothing else needs to be stored.
    """

    step: int
    """Optimizer steps done."""
    consumed_samples: int
    """Sequences of the global sample order consumed: the next one to read."""
    validation_loss: float | None = None
    """Last validation loss, for `checkpoint.keep_best`; None when none was measured."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """What else the loop wants back, as plain JSON values: sums of an unfinished logging interval, counters.
    Numbers that are not finite come back as None."""


@dataclass(frozen=True)
class Snapshot:
    """This rank's part of a checkpoint."""

    state: TrainingState
    fragments: list[Fragment]
    """What this rank writes."""
    optimizer_steps: set[int]
    """Updates that AdamW has made, over the parameters on this rank."""
    shapes: dict[str, tuple[int, ...]]
    """Of the logical tensors of which this rank has a part."""
    layout: dict[str, int | str]


class HostBuffers:
    """Memory for one copy of what a rank writes, used again by every save: made once, its pages stay mapped.

    Beside a GPU it is page-locked, so that all copies are under way at once and are waited for once.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, str], torch.Tensor] = {}

    def copy(self, written: Iterable[Fragment]) -> list[Fragment]:
        """Copy the states of fragments; what an earlier call returned is overwritten.

        Args:
            written: the same fragments in the same order at every call.

        Returns:
            The fragments with their states in host memory.
        """
        copies, devices = [], set()
        for index, fragment in enumerate(written):
            states = {}
            for name, flat in fragment.states.items():
                states[name] = self._find(index, name, flat)
                states[name].copy_(flat.detach(), non_blocking=True)
                devices.add(flat.device)
            copies.append(dataclasses.replace(fragment, states=states))
        for device in devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return copies

    def _find(self, index: int, name: str, flat: torch.Tensor) -> torch.Tensor:
        buffer = self._buffers.get((index, name))
        if buffer is None or buffer.shape != flat.shape or buffer.dtype != flat.dtype:
            buffer = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=flat.device.type == "cuda")
            self._buffers[index, name] = buffer
        return buffer


def take_snapshot(engine: DeepSpeedEngine, state: TrainingState, buffers: HostBuffers | None = None) -> Snapshot:
    """Take what this rank writes. No collective: every rank calls it when it is between the same two steps.

    Args:
        engine: DeepSpeed engine with float32 master weights and a torch AdamW.
        state: where the loop stands.
        buffers: where to copy; None = no copy, the snapshot is good until the next step.

    Raises:
        CheckpointError: on all ranks alike, when the state of such an engine cannot be saved.
    """
    fragments.check_engine_is_supported(engine)
    written = fragments.owned_fragments(engine)
    return Snapshot(
        # The loop goes on adding to its sums.
        state=dataclasses.replace(state, progress=copy.deepcopy(dict(state.progress))),
        fragments=list(written) if buffers is None else buffers.copy(written),
        optimizer_steps=fragments.get_optimizer_steps(engine),
        shapes=fragments.own_parameter_shapes(engine),
        layout=fragments.describe_layout(engine),
    )
