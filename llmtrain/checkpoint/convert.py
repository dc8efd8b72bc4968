"""Weights of a checkpoint as plain safetensors files, for tools that know nothing of boxes and ranks.

In: a committed checkpoint. Out: a folder, which appears whole and checked, or not at all:

    model.safetensors                     whole tensors by canonical name; above a size limit instead
    model-00001-of-00003.safetensors ...  and model.safetensors.index.json, which says what is where
    metadata.json                         step, digest, type, configuration, shapes, versions

One file is held in memory at a time.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from llmtrain.checkpoint.digest import combine_digests, compute_range_digest
from llmtrain.checkpoint.manifest import Manifest, read_manifest
from llmtrain.checkpoint.tensor_file import PieceReader
from llmtrain.errors import CheckpointError
from llmtrain.parallel.geometry import whole_box

MAX_FILE_BYTES = 5_000_000_000
INDEX_NAME, METADATA_NAME = "model.safetensors.index.json", "metadata.json"

DtypeName = Literal["float32", "bfloat16"]


def convert_checkpoint(
    checkpoint: Path, output: Path, dtype: DtypeName = "float32", max_file_bytes: int = MAX_FILE_BYTES
) -> None:
    """Write the weights of a checkpoint as a folder of plain safetensors files.

    Args:
        checkpoint: a directory `step-NNNNNNNN`.
        output: folder to make; nothing may be in it.
        dtype: of the written tensors.
        max_file_bytes: a file is closed before it grows beyond this; one tensor alone may be larger.

    Raises:
        CheckpointError: the folder is there already or cannot be written, the checkpoint is damaged, its weights do not
            add up to its digest, or what was written does not read back as what was meant.
    """
    output = output.absolute()
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise CheckpointError(f"{output}: is there already and is not empty. Choose another folder, or remove it.")
    manifest = read_manifest(checkpoint)
    staging = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        staging.mkdir(parents=True)
        names_by_file = _spread_over_files(manifest, getattr(torch, dtype).itemsize, max_file_bytes)
        meant = _write_files(checkpoint, manifest, staging, names_by_file, getattr(torch, dtype))
        _check_files(staging, names_by_file, meant)
        if len(names_by_file) > 1:
            _write_json(staging / INDEX_NAME, _describe_index(manifest, names_by_file, getattr(torch, dtype).itemsize))
        _write_json(staging / METADATA_NAME, _describe(manifest, dtype, meant))
        if output.exists():
            output.rmdir()
        staging.rename(output)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{output}: could not be written: {error}. Free some space or choose another.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _spread_over_files(manifest: Manifest, item_bytes: int, max_file_bytes: int) -> dict[str, list[str]]:
    """Names of tensors by file, in the order of their names."""
    groups: list[list[str]] = [[]]
    held = 0
    for name, shape in sorted(manifest.parameter_shapes.items()):
        size = item_bytes * torch.Size(shape).numel()
        if groups[-1] and held + size > max_file_bytes:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    return {f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors": names for i, names in enumerate(groups)}


def _write_files(
    checkpoint: Path, manifest: Manifest, folder: Path, names_by_file: dict[str, list[str]], dtype: torch.dtype
) -> int:
    """Write all files; the digest of what was meant to be written, as float32."""
    read, meant = [], []
    with PieceReader(checkpoint) as reader:
        for file_name, names in names_by_file.items():
            tensors = {}
            for name in names:
                tensor = torch.empty(manifest.parameter_shapes[name], dtype=torch.float32)
                reader.read_into(tensor, manifest.tensors[f"weights/{name}"], whole_box(tensor.shape))
                read.append(compute_range_digest(name, tensor.view(-1), 0))
                tensors[name] = tensor.to(dtype)
                meant.append(compute_range_digest(name, tensors[name].float().view(-1), 0))
            save_file(tensors, folder / file_name, metadata={"format": "pt"})
            _flush(folder / file_name)
    if f"{combine_digests(read):016x}" != manifest.weights_digest:
        raise CheckpointError(
            f"{checkpoint}: its weights have digest {combine_digests(read):016x}, the manifest says "
            f"{manifest.weights_digest}: damaged. Choose another step."
        )
    return combine_digests(meant)


def _check_files(folder: Path, names_by_file: dict[str, list[str]], meant: int) -> None:
    found = combine_digests(
        compute_range_digest(name, tensor.float().view(-1), 0)
        for file_name in names_by_file
        for name, tensor in _read_tensors(folder / file_name)
    )
    if found != meant:
        raise CheckpointError(
            f"{folder}: what was written has digest {found:016x}, it should have {meant:016x}. Choose another disk."
        )


def _read_tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  not a mapping
            yield name, file.get_tensor(name)


def _describe_index(manifest: Manifest, names_by_file: dict[str, list[str]], item_bytes: int) -> dict[str, Any]:
    total = sum(torch.Size(shape).numel() for shape in manifest.parameter_shapes.values())
    return {
        "metadata": {"total_size": item_bytes * total},
        "weight_map": {name: file_name for file_name, names in names_by_file.items() for name in names},
    }


def _describe(manifest: Manifest, dtype: DtypeName, digest: int) -> dict[str, Any]:
    return {
        "format": "llmtrain-weights",
        "step": manifest.step,
        "consumed_samples": manifest.consumed_samples,
        "validation_loss": manifest.validation_loss,
        "dtype": dtype,
        "weights_digest": f"{digest:016x}",
        "checkpoint_weights_digest": manifest.weights_digest,
        "shapes": manifest.parameter_shapes,
        "config": manifest.config,
        "versions": manifest.versions,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
    _flush(path)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
