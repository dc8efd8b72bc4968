"""Commit protocol: a reader never sees half a checkpoint, whichever rank dies at whichever moment.

In: what this rank writes, and a function that makes the manifest. Out: the directory `step-NNNNNNNN`. All ranks call
it.

    step-N.tmp/  made by rank 0      every rank: is there room?
    rank files   every rank writes, hashes, fsyncs its own; all agree that all succeeded
    manifest     rank 0, fsync; fsync of the directory
    rename       step-N.tmp -> step-N; fsync of the parent: from here on the checkpoint exists
    pointer      latest.json by rename; a hint only

A failure before the rename removes step-N.tmp and raises on all ranks; older checkpoints are never touched.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist

from llmtrain.checkpoint.agreement import gather_from_all, own_rank, raise_together
from llmtrain.checkpoint.manifest import (
    MANIFEST_NAME,
    POINTER_NAME,
    FileEntry,
    Manifest,
    encode_manifest,
    parse_step,
    step_directory_name,
)
from llmtrain.checkpoint.tensor_file import count_tensor_bytes, write_tensor_file
from llmtrain.errors import CheckpointError

logger = logging.getLogger(__name__)

_TEMPORARY_SUFFIX, _TRASH_SUFFIX = ".tmp", ".trash"
_UNHARMED = "Older checkpoints are whole, nothing of this one is left."


def commit_checkpoint(
    folder: Path,
    step: int,
    file_name: str,
    tensors: Mapping[str, torch.Tensor],
    make_manifest: Callable[[dict[str, FileEntry]], Manifest],
    group: dist.ProcessGroup | None = None,
) -> Path:
    """Write one checkpoint and make it visible as a whole.

    Args:
        folder: holds all checkpoints of a run, on a file system that every rank sees.
        step: optimizer step, names the directory.
        file_name: this rank's file.
        tensors: what this rank owns; nothing is written when it is empty.
        make_manifest: called on rank 0 with the size and hash of every file.
        group: of all ranks, in which they agree; None = the default one.

    Returns:
        The committed directory.

    Raises:
        CheckpointError: on all ranks, when one could not write; names file, rank and bytes.
    """
    final = folder / step_directory_name(step)
    staging = final.with_name(final.name + _TEMPORARY_SUFFIX)
    try:
        _check_room(folder, count_tensor_bytes(tensors), group)
        raise_together(_problem_of(lambda: _make_staging(staging), staging), group)
        entry, problem = None, None
        if tensors:
            entry, problem = _write_own_file(staging / file_name, tensors)
        raise_together(problem, group)
        entries = {name: entry for name, entry in gather_from_all((file_name, entry), group) if entry is not None}
        raise_together(_problem_of(lambda: _publish(staging, final, make_manifest(entries)), final), group)
    except CheckpointError:
        if own_rank() == 0:
            shutil.rmtree(staging, ignore_errors=True)
        raise
    if own_rank() == 0:
        _point_at(final)
    return final


def replace_manifest(checkpoint: Path, manifest: Manifest) -> None:
    """Exchange the manifest of a committed checkpoint in one step. Rank 0 calls it.

    Raises:
        CheckpointError: it could not be written; the old one is still there.
    """
    temporary = checkpoint / (MANIFEST_NAME + _TEMPORARY_SUFFIX)
    try:
        _write_flushed(temporary, encode_manifest(manifest))
        temporary.replace(checkpoint / MANIFEST_NAME)
        _flush_directory(checkpoint)
    except OSError as error:
        raise CheckpointError(f"{temporary}: could not be written: {error}. The checkpoint is as it was.") from None


def discard_checkpoint(checkpoint: Path) -> None:
    """Delete a checkpoint so that no reader sees it half-deleted: rename first, then remove."""
    trash = checkpoint.with_name(checkpoint.name + _TRASH_SUFFIX)
    if trash.exists():
        shutil.rmtree(trash)
    checkpoint.rename(trash)
    _flush_directory(checkpoint.parent)
    shutil.rmtree(trash)


def remove_leftovers(folder: Path) -> list[Path]:
    """Delete what a killed run left: unfinished and half-deleted checkpoints. Rank 0 calls it before training.

    Args:
        folder: holds the checkpoints of a run that is not running now.

    Returns:
        What was deleted.
    """
    if not folder.is_dir():
        return []
    leftovers = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in (_TEMPORARY_SUFFIX, _TRASH_SUFFIX)
        and (parse_step(path.with_suffix("")) is not None or path.stem == POINTER_NAME)
    ]
    for path in leftovers:
        logger.info("%s: removed, left by a run that ended while saving", path)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return leftovers


def _check_room(folder: Path, own_bytes: int, group: dist.ProcessGroup | None) -> None:
    needed = sum(gather_from_all(own_bytes, group))
    problem = None
    if own_rank() == 0:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(nearest).free
        if free < needed:
            problem = (
                f"{folder}: a checkpoint needs {needed:,} bytes, {free:,} are free. {_UNHARMED} "
                "Free some space or lower checkpoint.keep_last, then resume."
            )
    raise_together(problem, group)


def _problem_of(action: Callable[[], None], path: Path) -> str | None:
    """Run an action of rank 0; what went wrong with it, in words."""
    if own_rank() != 0:
        return None
    try:
        action()
    except CheckpointError as error:
        return str(error)
    except OSError as error:
        return f"{path}: rank 0 could not write it: {error}. {_UNHARMED}"
    return None


def _make_staging(staging: Path) -> None:
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(parents=True)


def _write_own_file(path: Path, tensors: Mapping[str, torch.Tensor]) -> tuple[FileEntry | None, str | None]:
    try:
        return write_tensor_file(path, tensors), None
    except OSError as error:
        return None, (
            f"{path}: rank {own_rank()} could not write its {count_tensor_bytes(tensors):,} bytes: {error}. "
            f"{_UNHARMED} Free some space or choose another folder, then resume."
        )


def _publish(staging: Path, final: Path, manifest: Manifest) -> None:
    _write_flushed(staging / MANIFEST_NAME, encode_manifest(manifest))
    _flush_directory(staging)
    if final.exists():
        logger.info("%s: replaced by a new checkpoint of the same step", final)
        discard_checkpoint(final)
    staging.rename(final)
    _flush_directory(final.parent)


def _point_at(final: Path) -> None:
    """Write the pointer. The checkpoint is committed already, so a failure here is no reason to stop."""
    temporary = final.parent / (POINTER_NAME + _TEMPORARY_SUFFIX)
    try:
        _write_flushed(temporary, json.dumps({"checkpoint": final.name}).encode() + b"\n")
        temporary.replace(final.parent / POINTER_NAME)
        _flush_directory(final.parent)
    except OSError as error:
        logger.warning("%s: not updated: %s; readers do not depend on it", final.parent / POINTER_NAME, error)


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
