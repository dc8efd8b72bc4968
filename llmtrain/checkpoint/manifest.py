"""The manifest of a checkpoint: what the state is, which file holds which part of it, and how to tell it is whole.

In and out: `manifest.json` and `Manifest`. The manifest carries a sha256 of itself; it is the last file written before
a checkpoint gets its name, so a directory without a good manifest is not a checkpoint.

    checkpoints/
      step-00000010/
        manifest.json
        rank00000.safetensors      what rank 0 owned; keys "<state>/<name>@<offset>"
        rank00001.safetensors
      latest.json                  a hint for people and tools; never trusted
"""

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmtrain.errors import CheckpointError

MANIFEST_NAME = "manifest.json"
POINTER_NAME = "latest.json"
StateName = Literal["weights", "exp_avg", "exp_avg_sq"]
STATES: tuple[StateName, ...] = ("weights", "exp_avg", "exp_avg_sq")
"""What is stored of every parameter: float32 master weights and both Adam moments."""

_STEP_DIRECTORY = re.compile(r"step-(\d{8,})")
_FileName = Annotated[str, Field(pattern=r"^rank\d{5,}\.safetensors$")]
_Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Piece(_Record):
    """A box of a logical tensor, stored as one tensor of one file."""

    file: _FileName
    key: str
    offset: tuple[_Count, ...]
    shape: tuple[_Count, ...]


class LogicalTensor(_Record):
    """One tensor of the training state, as a single process would hold it. Its pieces cover it without overlap."""

    shape: tuple[_Count, ...]
    dtype: Literal["float32"] = "float32"
    pieces: tuple[Piece, ...]


class FileEntry(_Record):
    """Size and sha256 of one file."""

    bytes: _Count
    sha256: str


class Manifest(_Record):
    """Everything that is known about a checkpoint without reading a tensor."""

    format: Literal["llmtrain-checkpoint"] = "llmtrain-checkpoint"
    format_version: Literal[2] = 2
    step: _Count
    consumed_samples: _Count
    optimizer_step: _Count
    validation_loss: float | None
    progress: dict[str, Any]
    weights_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    tensors: dict[str, LogicalTensor]
    files: dict[_FileName, FileEntry]
    config: dict[str, Any]
    layout: dict[str, int | str]
    versions: dict[str, str]
    parent: str | None

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter by canonical name."""
        return {
            name.removeprefix("weights/"): tensor.shape
            for name, tensor in self.tensors.items()
            if name.startswith("weights/")
        }


def step_directory_name(step: int) -> str:
    """Name of the directory of a step."""
    return f"step-{step:08d}"


def parse_step(path: Path) -> int | None:
    """Step of a committed checkpoint's directory; None for every other name (temporary ones too)."""
    match = _STEP_DIRECTORY.fullmatch(path.name)
    return int(match[1]) if match else None


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as sealed, strict JSON: numbers that are not finite become null."""
    body = manifest.model_dump(mode="json")
    return json.dumps({"sha256": _seal(body), **body}, allow_nan=False).encode() + b"\n"


def read_manifest(checkpoint: Path) -> Manifest:
    """Read and check the manifest of a checkpoint.

    Args:
        checkpoint: directory of one step.

    Raises:
        CheckpointError: the manifest is missing, damaged, of another format, or its pieces do not cover a tensor.
    """
    path = checkpoint / MANIFEST_NAME
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing, so this is not a whole checkpoint. Choose another step.") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}. Choose another step.") from None
    seal = body.pop("sha256", None) if isinstance(body, dict) else None
    if seal is None or seal != _seal(body):
        raise CheckpointError(f"{path}: its content does not match its own sha256: damaged. Choose another step.")
    try:
        manifest = Manifest.model_validate_json(json.dumps(body))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(
            f"{path}: {where}: {first['msg']}. This version reads llmtrain-checkpoint format 2."
        ) from None
    check_coverage(manifest, path)
    return manifest


def check_coverage(manifest: Manifest, where: Path) -> None:
    """Check that the pieces of every tensor lie inside it, add up to it, and that all three states are there.

    Args:
        manifest: what to check.
        where: named in messages.

    Raises:
        CheckpointError: a tensor is not covered exactly.
    """
    for name, tensor in manifest.tensors.items():
        held = sum(math.prod(piece.shape) for piece in tensor.pieces)
        if held != math.prod(tensor.shape):
            raise CheckpointError(
                f"{where}: {name} has {math.prod(tensor.shape):,} elements, its pieces hold {held:,}. "
                "Choose another step."
            )
        for piece in tensor.pieces:
            ends = (start + size for start, size in zip(piece.offset, piece.shape, strict=True))
            if piece.file not in manifest.files or any(e > s for e, s in zip(ends, tensor.shape, strict=True)):
                raise CheckpointError(f"{where}: piece {piece.key} does not fit {name}. Choose another step.")
    for name, shape in manifest.parameter_shapes.items():
        for state in STATES:
            if f"{state}/{name}" not in manifest.tensors or manifest.tensors[f"{state}/{name}"].shape != shape:
                raise CheckpointError(f"{where}: {state}/{name} is missing or has another shape. Choose another step.")


def _seal(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
