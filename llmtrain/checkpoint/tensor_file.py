"""Tensors on disk: one safetensors file per writing rank.

Written here in one pass, hashed while written, so that a rank never holds a second copy of its state. Read through the
safetensors library, memory-mapped, only the boxes that are asked for.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from llmtrain.checkpoint.manifest import FileEntry, LogicalTensor
from llmtrain.errors import CheckpointError
from llmtrain.parallel.geometry import Box

_HASH_CHUNK_BYTES = 1 << 22


def write_tensor_file(path: Path, tensors: Mapping[str, torch.Tensor]) -> FileEntry:
    """Write float32 tensors as one safetensors file and flush it to the disk.

    Args:
        path: file to make.
        tensors: key -> float32 tensor on any device; copied to the host one at a time.

    Returns:
        Size and sha256 of the file.

    Raises:
        OSError: the disk is full, a quota is reached, the folder is read-only.

    Source:
        https://github.com/huggingface/safetensors: header length as 8 bytes little-endian, JSON header, raw data.
    """
    header: dict[str, Any] = {}
    end = 0
    for key, tensor in tensors.items():
        start, end = end, end + 4 * tensor.numel()
        header[key] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in (len(encoded).to_bytes(8, "little"), encoded):
            digest.update(part)
            file.write(part)
        for tensor in tensors.values():
            data = tensor.detach().cpu().contiguous().view(-1).numpy().view(np.uint8).data
            digest.update(data)
            file.write(data)
        size = file.tell()
        file.flush()
        os.fsync(file.fileno())
    return FileEntry(bytes=size, sha256=digest.hexdigest())


def count_tensor_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes that `write_tensor_file` needs for the data; the header is small beside it."""
    return sum(4 * tensor.numel() for tensor in tensors.values())


def hash_file(path: Path) -> str:
    """sha256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


class PieceReader:
    """Copies boxes of logical tensors out of a checkpoint's files; each file is opened on first use."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        self._files: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def read_into(self, target: torch.Tensor, tensor: LogicalTensor, box: Box) -> None:
        """Fill `target` with one box of a logical tensor.

        Args:
            target: float32, shape of the box, any device; written in place.
            tensor: where the pieces lie.
            box: the part wanted; the pieces cover it (`check_coverage`).

        Raises:
            CheckpointError: a file lacks a piece that the manifest lists.
        """
        for piece in tensor.pieces:
            piece_box = Box(piece.offset, piece.shape)
            shared = box.intersect(piece_box)
            if shared is not None:
                values = self._read(piece.file, piece.key, shared.relative_to(piece_box), piece.shape)
                target[shared.relative_to(box).slices].copy_(values)

    def _read(self, file_name: str, key: str, box: Box, stored_shape: tuple[int, ...]) -> torch.Tensor:
        path = self._checkpoint / file_name
        try:
            if file_name not in self._files:
                self._files[file_name] = self._stack.enter_context(safe_open(path, framework="pt"))
            file = self._files[file_name]
            if not stored_shape:
                return cast(torch.Tensor, file.get_tensor(key))
            stored = file.get_slice(key)
            if tuple(stored.get_shape()) != stored_shape or stored.get_dtype() != "F32":
                raise CheckpointError(
                    f"{path}: {key} is {stored.get_dtype()} {tuple(stored.get_shape())}, the manifest says F32 "
                    f"{stored_shape}. Choose another step."
                )
            return cast(torch.Tensor, stored[box.slices])
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: cannot read {key}: {error}. Choose another step.") from None
