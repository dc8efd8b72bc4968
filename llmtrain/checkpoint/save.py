"""Saving the training state of an engine.

In: a snapshot of it between two steps (`snapshot.py`). Out: a committed checkpoint directory. Each rank writes what it
owns; nothing is gathered except names, positions and hashes. Nothing here touches the engine, so that it can run beside
training.
"""

import importlib.metadata
import logging
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from llmtrain.checkpoint.agreement import gather_from_all, gather_to_first, own_rank, raise_together
from llmtrain.checkpoint.commit import commit_checkpoint, replace_manifest
from llmtrain.checkpoint.digest import combine_digests
from llmtrain.checkpoint.find import find_problem
from llmtrain.checkpoint.fragments import Fragment, merge_shapes
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
from llmtrain.checkpoint.snapshot import Snapshot, TrainingState
from llmtrain.config.checkpoint import CheckpointConfig
from llmtrain.errors import CheckpointError

logger = logging.getLogger(__name__)

_RECORDED_PACKAGES = ("llmtrain", "torch", "deepspeed", "safetensors", "numpy")


@dataclass(frozen=True)
class Destination:
    """Where checkpoints of a run go, and what is written beside the state."""

    folder: Path
    """`checkpoints/` of the run, on a file system that every rank sees."""
    config: Mapping[str, Any]
    """The resolved configuration as plain data (`Config.model_dump(mode="json")`)."""
    retention: CheckpointConfig
    """Section `checkpoint`."""
    parent: str | None = None
    """Name of the checkpoint that this one continues."""


def write_snapshot(snapshot: Snapshot, destination: Destination, group: dist.ProcessGroup | None = None) -> Path:
    """Write and commit a snapshot, then apply the retention rules. All ranks call it.

    Args:
        snapshot: this rank's part; rank 0's state is written.
        destination: where to.
        group: of all ranks, in which they agree; None = the default one.

    Returns:
        The directory `step-NNNNNNNN`.

    Raises:
        CheckpointError: on all ranks, when the parts do not fit together or one rank could not write.
    """
    state, folder = snapshot.state, destination.folder
    optimizer_step = _agree_on_optimizer_step(snapshot, group)
    file_name = f"rank{own_rank():05d}.safetensors"
    tensors, own_pieces, own_digest = _collect(snapshot.fragments, file_name)
    digest = combine_digests(gather_from_all(own_digest, group))
    existing = folder / step_directory_name(state.step)
    if _is_already_saved(existing, f"{digest:016x}", optimizer_step, group):
        _note_progress(existing, state, group)
        return existing
    all_pieces = gather_to_first(own_pieces, group)
    shapes = merge_shapes(gather_to_first(snapshot.shapes, group))

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
            config=dict(destination.config),
            layout=snapshot.layout,
            versions=_collect_versions(),
            parent=destination.parent,
        )
        check_coverage(manifest, folder / step_directory_name(state.step))
        return manifest

    checkpoint = commit_checkpoint(folder, state.step, file_name, tensors, make_manifest, group)
    if own_rank() == 0:
        for discarded in apply_retention(folder, destination.retention):
            logger.info("%s deleted: no rule of section checkpoint keeps it", discarded.name)
    return checkpoint


def _collect(written: list[Fragment], file_name: str) -> tuple[dict[str, torch.Tensor], dict[str, list[Piece]], int]:
    """This rank's tensors by file key, the pieces they are, and its share of the weights digest."""
    tensors: dict[str, torch.Tensor] = {}
    pieces: dict[str, list[Piece]] = {}
    digests = []
    for fragment in written:
        digests.append(fragment.compute_digest())
        for box, views in fragment.boxes():
            for state_name, view in views.items():
                name = f"{state_name}/{fragment.name}"
                key = f"{name}@{','.join(map(str, box.offset))}"
                tensors[key] = view
                piece = Piece(file=file_name, key=key, offset=box.offset, shape=box.shape)
                pieces.setdefault(name, []).append(piece)
    return tensors, pieces, combine_digests(digests)


def _agree_on_optimizer_step(snapshot: Snapshot, group: dist.ProcessGroup | None) -> int:
    steps = set().union(*gather_from_all(snapshot.optimizer_steps, group))
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


def _is_already_saved(checkpoint: Path, digest: str, optimizer_step: int, group: dist.ProcessGroup | None) -> bool:
    """Whether this very state was committed before, as after a resume without a step.

    Writing it again would put the only good copy at risk for a moment.
    """
    if not gather_from_all(checkpoint.is_dir(), group)[0] or find_problem(checkpoint, "full", group) is not None:
        return False
    manifest = read_manifest(checkpoint)
    return manifest.weights_digest == digest and manifest.optimizer_step == optimizer_step


def _note_progress(checkpoint: Path, state: TrainingState, group: dist.ProcessGroup | None) -> None:
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
    raise_together(problem, group)


def _collect_versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in _RECORDED_PACKAGES}
    return {"python": platform.python_version(), **packages}


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
