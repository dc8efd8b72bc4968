"""Saving the training state of a DeepSpeed engine.

In: an engine between two steps and what the loop knows. Out: a committed checkpoint directory. Each rank writes what
it owns; nothing is gathered except names, positions and hashes.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llmtrain.checkpoint import fragments
from llmtrain.checkpoint.agreement import gather_from_all, gather_to_first, own_rank, raise_together
from llmtrain.checkpoint.commit import commit_checkpoint, replace_manifest
from llmtrain.checkpoint.digest import combine_digests
from llmtrain.checkpoint.find import find_problem
from llmtrain.checkpoint.manifest import (
    FileEntry,
    LogicalTensor,
    Manifest,
    Piece,
    check_coverage,
    read_manifest,
    step_directory_name,
)
from llmtrain.checkpoint.retention import apply_retention
from llmtrain.config.checkpoint import CheckpointConfig
from llmtrain.errors import CheckpointError

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

logger = logging.getLogger(__name__)

_RECORDED_PACKAGES = ("llmtrain", "torch", "deepspeed", "safetensors", "numpy")


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


def save_checkpoint(
    folder: Path,
    engine: DeepSpeedEngine,
    state: TrainingState,
    *,
    config: Mapping[str, Any],
    retention: CheckpointConfig,
    parent: str | None = None,
) -> Path:
    """Save and commit a checkpoint, then apply the retention rules. All ranks call it, between two steps.

    Args:
        folder: `checkpoints/` of the run, on a file system that every rank sees.
        engine: DeepSpeed engine with float32 master weights and a torch AdamW.
        state: where the loop stands; rank 0's is written.
        config: the resolved configuration as plain data (`Config.model_dump(mode="json")`).
        retention: section `checkpoint`.
        parent: name of the checkpoint that this run was resumed from.

    Returns:
        The directory `step-NNNNNNNN`.

    Raises:
        CheckpointError: on all ranks, when the state cannot be saved or one rank could not write.
    """
    fragments.check_engine_is_supported(engine)
    optimizer_step = _agree_on_optimizer_step(engine)
    file_name = f"rank{own_rank():05d}.safetensors"
    tensors, own_pieces, own_digest = _collect(engine, file_name)
    digest = combine_digests(gather_from_all(own_digest))
    existing = folder / step_directory_name(state.step)
    if _is_already_saved(existing, f"{digest:016x}", optimizer_step):
        _note_progress(existing, state)
        return existing
    all_pieces = gather_to_first(own_pieces)
    shapes = fragments.parameter_shapes(engine)

    def make_manifest(files: dict[str, FileEntry]) -> Manifest:
        manifest = Manifest(
            step=state.step,
            consumed_samples=state.consumed_samples,
            optimizer_step=optimizer_step,
            validation_loss=_finite_or_none(state.validation_loss),
            progress=dict(state.progress),
            weights_digest=f"{digest:016x}",
            tensors=_merge_pieces(all_pieces, shapes),
            files=files,
            config=dict(config),
            layout=fragments.describe_layout(engine),
            versions=_collect_versions(),
            parent=parent,
        )
        check_coverage(manifest, folder / step_directory_name(state.step))
        return manifest

    checkpoint = commit_checkpoint(folder, state.step, file_name, tensors, make_manifest)
    if own_rank() == 0:
        for discarded in apply_retention(folder, retention):
            logger.info("%s deleted: no rule of section checkpoint keeps it", discarded.name)
    return checkpoint


def _collect(engine: DeepSpeedEngine, file_name: str) -> tuple[dict[str, torch.Tensor], dict[str, list[Piece]], int]:
    """This rank's tensors by file key, the pieces they are, and its share of the weights digest."""
    tensors: dict[str, torch.Tensor] = {}
    pieces: dict[str, list[Piece]] = {}
    digests = []
    for fragment in fragments.owned_fragments(engine):
        digests.append(fragment.compute_digest())
        for box, views in fragment.boxes():
            for state_name, view in views.items():
                name = f"{state_name}/{fragment.name}"
                key = f"{name}@{','.join(map(str, box.offset))}"
                tensors[key] = view
                piece = Piece(file=file_name, key=key, offset=box.offset, shape=box.shape)
                pieces.setdefault(name, []).append(piece)
    return tensors, pieces, combine_digests(digests)


def _agree_on_optimizer_step(engine: DeepSpeedEngine) -> int:
    steps = set().union(*gather_from_all(fragments.get_optimizer_steps(engine)))
    if len(steps) != 1:
        raise CheckpointError(
            f"checkpoint: AdamW has updated some parameters {min(steps)} times, others {max(steps)}. A parameter that "
            "gets no gradient cannot be saved. Remove it from the model."
        )
    return steps.pop()


def _merge_pieces(
    all_pieces: list[dict[str, list[Piece]]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, LogicalTensor]:
    merged: dict[str, list[Piece]] = {}
    for pieces in all_pieces:
        for name, own in pieces.items():
            merged.setdefault(name, []).extend(own)
    return {
        name: LogicalTensor(shape=shapes[name.split("/", 1)[1]], pieces=tuple(merged[name])) for name in sorted(merged)
    }


def _is_already_saved(checkpoint: Path, digest: str, optimizer_step: int) -> bool:
    """Whether this very state was committed before, as after a resume without a step.

    Writing it again would put the only good copy at risk for a moment.
    """
    if not gather_from_all(checkpoint.is_dir())[0] or find_problem(checkpoint, "full") is not None:
        return False
    manifest = read_manifest(checkpoint)
    return manifest.weights_digest == digest and manifest.optimizer_step == optimizer_step


def _note_progress(checkpoint: Path, state: TrainingState) -> None:
    """Bring the manifest of a state that is saved already up to date: it may have been validated since."""
    problem = None
    if own_rank() == 0:
        old = read_manifest(checkpoint)
        loss = _finite_or_none(state.validation_loss)
        new = {"validation_loss": old.validation_loss if loss is None else loss, "progress": dict(state.progress)}
        try:
            replace_manifest(checkpoint, old.model_copy(update=new))
        except CheckpointError as error:
            problem = str(error)
    raise_together(problem)


def _collect_versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in _RECORDED_PACKAGES}
    return {"python": platform.python_version(), **packages}


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
