"""Checkpoints of a stage: a folder counts when its last file, `complete.json`, is there.

`transformers` writes the files of a checkpoint one after the other into the folder that it later resumes from, so a
process that is killed meanwhile leaves half of one. Here such folders are passed over and removed.
"""

import json
import os
import re
import shutil
from pathlib import Path

from llmtrain.errors import CheckpointError
from llmtrain.tracking.run_folder import write_whole

COMPLETE_NAME = "complete.json"
_FOLDER = re.compile(r"checkpoint-(\d+)")


def commit_checkpoint(folder: Path, step: int, keep_last: int, world_size: int = 1, zero_stage: int = 0) -> None:
    """Declare a checkpoint whole, then remove all but the newest; one rank does it, after all have written."""
    sizes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != COMPLETE_NAME:
            sizes[str(path.relative_to(folder))] = path.stat().st_size
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    written = {"step": step, "world_size": world_size, "zero_stage": zero_stage, "files": sizes}
    write_whole(folder / COMPLETE_NAME, json.dumps(written, indent=1) + "\n")
    for old in _list_steps(folder.parent)[:-keep_last]:
        shutil.rmtree(folder.parent / f"checkpoint-{old}", ignore_errors=True)


def find_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint.

    Raises:
        CheckpointError: a file of it is missing or has another size than when it was written.
    """
    steps = _list_steps(folder)
    if not steps:
        return None
    checkpoint = folder / f"checkpoint-{steps[-1]}"
    recorded = json.loads((checkpoint / COMPLETE_NAME).read_text(encoding="utf-8"))["files"]
    for name, size in recorded.items():
        path = checkpoint / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            raise CheckpointError(
                f"{path}: {'missing' if found is None else f'{found:,} bytes'}, was {size:,} bytes when it was saved. "
                f"Remove {checkpoint} to resume from the one before."
            )
    return checkpoint


def check_ranks(checkpoint: Path, world_size: int) -> None:
    """Refuse ZeRO's pieces of optimizer states on another number of ranks.

    Raises:
        CheckpointError: the numbers differ; both are named.
    """
    written = json.loads((checkpoint / COMPLETE_NAME).read_text(encoding="utf-8"))
    if written["zero_stage"] and written["world_size"] != world_size:
        raise CheckpointError(
            f"{checkpoint}: saved by {written['world_size']} ranks under ZeRO, this run has {world_size}. Continue on "
            f"{written['world_size']}, or remove {checkpoint.parent} to start the stage anew."
        )


def remove_torn(folder: Path) -> None:
    """Remove what a killed process left half written; one rank does it."""
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE_NAME).is_file():
            shutil.rmtree(path, ignore_errors=True)


def _list_steps(folder: Path) -> list[int]:
    return sorted(
        int(match[1])
        for path in folder.glob("checkpoint-*")
        if (match := _FOLDER.fullmatch(path.name)) and (path / COMPLETE_NAME).is_file()
    )
