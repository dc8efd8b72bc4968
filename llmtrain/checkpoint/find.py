"""Finding the checkpoint to start from: the newest one that is whole.

In: the folder of a run's checkpoints. Out: a directory whose manifest holds, or the reasons why there is none. The
pointer `latest.json` is not read: what counts is what verifies.
"""

import logging
from pathlib import Path
from typing import Literal

import torch.distributed as dist

from llmtrain.checkpoint.agreement import gather_from_all, own_rank
from llmtrain.checkpoint.manifest import Manifest, parse_step, read_manifest, step_directory_name
from llmtrain.checkpoint.tensor_file import hash_file
from llmtrain.errors import CheckpointError

logger = logging.getLogger(__name__)


def list_checkpoints(folder: Path) -> list[Path]:
    """Committed checkpoints by name, newest step first; nothing about them is verified."""
    if not folder.is_dir():
        return []
    steps = {path: parse_step(path) for path in folder.iterdir() if path.is_dir()}
    return sorted((path for path, step in steps.items() if step is not None), key=lambda p: steps[p] or 0, reverse=True)


def find_step(folder: Path, step: int) -> Path:
    """The checkpoint of a step; nothing about it is verified.

    Raises:
        CheckpointError: there is none of that step; those that are there are named.
    """
    checkpoint = folder / step_directory_name(step)
    if not checkpoint.is_dir():
        there = [str(parse_step(path)) for path in reversed(list_checkpoints(folder))]
        raise CheckpointError(f"{folder}: no checkpoint of step {step}. There are: {', '.join(there) or 'none'}.")
    return checkpoint


def verify_checkpoint(checkpoint: Path, verify: Literal["size", "full"], *, part: int = 0, parts: int = 1) -> Manifest:
    """Check that a checkpoint is whole.

    Args:
        checkpoint: directory of one step.
        verify: `size` checks the manifest and every file's size; `full` also every file's sha256.
        part: which share of the files to hash; all ranks together hash all.
        parts: number of shares.

    Returns:
        Its manifest.

    Raises:
        CheckpointError: names the file that is missing or damaged, with expected and actual value.
    """
    manifest = read_manifest(checkpoint)
    if parse_step(checkpoint) not in (None, manifest.step):
        raise CheckpointError(f"{checkpoint}: its manifest is of step {manifest.step}. Choose another step.")
    for index, (name, entry) in enumerate(sorted(manifest.files.items())):
        path = checkpoint / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing, the manifest lists it. Choose another step.")
        size = path.stat().st_size
        if size != entry.bytes:
            raise CheckpointError(f"{path}: {size:,} bytes, the manifest says {entry.bytes:,}. Choose another step.")
        if verify == "full" and index % parts == part and (actual := hash_file(path)) != entry.sha256:
            raise CheckpointError(
                f"{path}: sha256 is {actual}, the manifest says {entry.sha256}: damaged. Choose another step."
            )
    return manifest


def find_problem(
    checkpoint: Path, verify: Literal["size", "full"], group: dist.ProcessGroup | None = None
) -> str | None:
    """What is wrong with a checkpoint. All ranks call it, share the hashing and get the same answer.

    Args:
        checkpoint: directory of one step.
        verify: see `verify_checkpoint`.
        group: of all ranks; None = the default one.

    Returns:
        The problem in words, None when the checkpoint is whole.
    """
    problem = None
    try:
        verify_checkpoint(
            checkpoint, verify, part=own_rank(), parts=dist.get_world_size() if dist.is_initialized() else 1
        )
    except (CheckpointError, OSError) as error:
        problem = str(error)
    return next((found for found in gather_from_all(problem, group) if found is not None), None)


def find_latest(folder: Path, verify: Literal["size", "full"] = "full") -> Path | None:
    """The newest whole checkpoint. All ranks call it and get the same answer.

    Args:
        folder: holds the checkpoints of a run.
        verify: see `verify_checkpoint`.

    Returns:
        Its directory; None when there is no checkpoint at all.

    Raises:
        CheckpointError: there are checkpoints, none is whole. Starting again would throw a run away in silence.
    """
    candidates = gather_from_all(list_checkpoints(folder) if own_rank() == 0 else [])[0]
    refused: list[str] = []
    for checkpoint in candidates:
        problem = find_problem(checkpoint, verify)
        if problem is None:
            return checkpoint
        refused.append(problem)
        if own_rank() == 0:
            logger.warning("%s refused, trying the one before it: %s", checkpoint.name, problem)
    if refused:
        raise CheckpointError(
            f"{folder}: {len(refused)} checkpoints, none is whole:\n" + "\n".join(refused) + "\nPut a copy back, or "
            "choose another run.name to start again."
        )
    return None
