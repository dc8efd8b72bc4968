"""Small checkpoints made without DeepSpeed, on one process."""

from collections.abc import Mapping
from pathlib import Path

import torch

from llmtrain.checkpoint.digest import compute_range_digest
from llmtrain.checkpoint.manifest import (
    MANIFEST_NAME,
    STATES,
    FileEntry,
    LogicalTensor,
    Manifest,
    Piece,
    encode_manifest,
    step_directory_name,
)
from llmtrain.checkpoint.tensor_file import write_tensor_file

SHAPE = (6, 40)


def file_name(rank: int) -> str:
    return f"rank{rank:05d}.safetensors"


def rows_of_rank(step: int, rank: int, num_ranks: int) -> dict[str, torch.Tensor]:
    """Each rank holds equal rows of one parameter `w` and of its moments."""
    generator = torch.Generator().manual_seed(step)
    rows = SHAPE[0] // num_ranks
    states = {state: torch.randn(SHAPE, generator=generator) for state in STATES}
    return {f"{state}/w@{rank * rows},0": full[rank * rows : (rank + 1) * rows] for state, full in states.items()}


def make_manifest(
    step: int, files: Mapping[str, FileEntry], num_ranks: int, validation_loss: float | None = None
) -> Manifest:
    rows = SHAPE[0] // num_ranks
    tensors = {}
    for state in STATES:
        pieces = [
            Piece(file=file_name(r), key=f"{state}/w@{r * rows},0", offset=(r * rows, 0), shape=(rows, SHAPE[1]))
            for r in range(num_ranks)
        ]
        tensors[f"{state}/w"] = LogicalTensor(shape=SHAPE, pieces=tuple(pieces))
    digest = compute_range_digest("w", whole_tensor(step, "weights").flatten(), 0)
    return Manifest(
        step=step,
        consumed_samples=8 * step,
        optimizer_step=step,
        validation_loss=validation_loss,
        progress={},
        weights_digest=f"{digest:016x}",
        tensors=tensors,
        files=dict(files),
        config={},
        layout={"world_size": num_ranks},
        versions={},
        parent=None,
    )


def make_checkpoint(folder: Path, step: int, num_ranks: int = 2, validation_loss: float | None = None) -> Path:
    """A committed checkpoint, put there file by file."""
    checkpoint = folder / step_directory_name(step)
    checkpoint.mkdir(parents=True)
    files = {
        file_name(rank): write_tensor_file(checkpoint / file_name(rank), rows_of_rank(step, rank, num_ranks))
        for rank in range(num_ranks)
    }
    manifest = make_manifest(step, files, num_ranks, validation_loss)
    (checkpoint / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
    return checkpoint


def whole_tensor(step: int, state: str) -> torch.Tensor:
    return rows_of_rank(step, 0, 1)[f"{state}/w@0,0"]


def flip_bit(path: Path, position: int) -> None:
    """Flip the lowest bit of one byte; negative positions count from the end."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))
