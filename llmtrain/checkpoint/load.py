"""Loading a checkpoint into a DeepSpeed engine of any number of ranks and any ZeRO stage.

In: a committed checkpoint, a freshly built engine. Out: the engine as it was when saved, and the loop's numbers. Each
rank reads only the boxes that overlap what it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmtrain.checkpoint import fragments
from llmtrain.checkpoint.agreement import gather_from_all, raise_together
from llmtrain.checkpoint.digest import combine_digests
from llmtrain.checkpoint.manifest import Manifest, read_manifest
from llmtrain.checkpoint.snapshot import TrainingState
from llmtrain.checkpoint.tensor_file import PieceReader
from llmtrain.errors import CheckpointError

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_NAMES_SHOWN = 3


def load_checkpoint(checkpoint: Path, engine: DeepSpeedEngine) -> TrainingState:
    """Load master weights, moments and counters. All ranks call it, before the first step.

    Which checkpoint, and whether its files are whole, is decided before: `find_latest`, `verify_checkpoint`.

    Args:
        checkpoint: a directory `step-NNNNNNNN`.
        engine: DeepSpeed engine around the same model, any layout.

    Returns:
        Where the run stood.

    Raises:
        CheckpointError: on all ranks: another model, a damaged manifest or file, or weights that do not add up to the
            digest in the manifest. The engine must not be used then.
    """
    fragments.check_engine_is_supported(engine)
    manifest, problem = None, None
    try:
        manifest = read_manifest(checkpoint)
        _check_same_model(checkpoint, manifest, fragments.parameter_shapes(engine))
        _read_fragments(checkpoint, manifest, engine)
    except CheckpointError as error:
        problem = str(error)
    raise_together(problem)
    assert manifest is not None  # else raise_together has raised
    fragments.restore_counters(engine, manifest.step, manifest.consumed_samples, manifest.optimizer_step)
    fragments.synchronize_parameters(engine)
    digest = f"{_compute_weights_digest(engine):016x}"
    if digest != manifest.weights_digest:
        raise CheckpointError(
            f"{checkpoint}: the loaded weights have digest {digest}, the manifest says {manifest.weights_digest}. "
            "These are not the weights that were saved. Choose another step."
        )
    return TrainingState(manifest.step, manifest.consumed_samples, manifest.validation_loss, manifest.progress)


def _check_same_model(checkpoint: Path, manifest: Manifest, own: Mapping[str, tuple[int, ...]]) -> None:
    saved = manifest.parameter_shapes
    missing, unknown = sorted(own.keys() - saved.keys()), sorted(saved.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{checkpoint}: made with another model: it lacks {_show(missing)} and has {_show(unknown)} besides. "
            "Use the section model that is in its config."
        )
    for name, shape in own.items():
        if saved[name] != shape:
            raise CheckpointError(
                f"{checkpoint}: made with another model: {name} is {saved[name]} there, {shape} here. "
                "Use the section model that is in its config."
            )


def _read_fragments(checkpoint: Path, manifest: Manifest, engine: DeepSpeedEngine) -> None:
    with PieceReader(checkpoint) as reader:
        for fragment in fragments.held_fragments(engine):
            for box, views in fragment.boxes():
                for state_name, view in views.items():
                    reader.read_into(view, manifest.tensors[f"{state_name}/{fragment.name}"], box)


def _compute_weights_digest(engine: DeepSpeedEngine) -> int:
    own = combine_digests(fragment.compute_digest() for fragment in fragments.owned_fragments(engine))
    return combine_digests(gather_from_all(own))


def _show(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN]) or "nothing"
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
