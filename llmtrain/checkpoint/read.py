"""Reading whole tensors out of a checkpoint, without DeepSpeed and without a process group.

In: a committed checkpoint. Out: tensors by canonical name, for export, generation and tools.
"""

from pathlib import Path

import torch

from llmtrain.checkpoint.digest import combine_digests, compute_range_digest
from llmtrain.checkpoint.manifest import StateName, read_manifest
from llmtrain.checkpoint.tensor_file import PieceReader
from llmtrain.errors import CheckpointError
from llmtrain.parallel.geometry import whole_box


def read_state_dict(checkpoint: Path, state: StateName = "weights") -> dict[str, torch.Tensor]:
    """Read every tensor of one kind, whole.

    Args:
        checkpoint: a directory `step-NNNNNNNN`.
        state: float32 master weights, or one of the two Adam moments.

    Returns:
        Float32 tensors on the host by parameter name; tied parameters appear once.

    Raises:
        CheckpointError: the manifest or a file is damaged, or the weights do not add up to the manifest's digest.
    """
    manifest = read_manifest(checkpoint)
    tensors: dict[str, torch.Tensor] = {}
    with PieceReader(checkpoint) as reader:
        for name, shape in manifest.parameter_shapes.items():
            tensors[name] = torch.empty(shape, dtype=torch.float32)
            reader.read_into(tensors[name], manifest.tensors[f"{state}/{name}"], whole_box(shape))
    if state == "weights":
        digest = combine_digests(compute_range_digest(name, flat.view(-1), 0) for name, flat in tensors.items())
        if f"{digest:016x}" != manifest.weights_digest:
            raise CheckpointError(
                f"{checkpoint}: its weights have digest {digest:016x}, the manifest says {manifest.weights_digest}: "
                "damaged. Choose another step."
            )
    return tensors
