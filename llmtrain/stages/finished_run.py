"""What a run left behind, for the commands that use its model."""

from dataclasses import dataclass
from pathlib import Path

import torch

from llmtrain.checkpoint.find import find_latest, find_step, verify_checkpoint
from llmtrain.checkpoint.manifest import Manifest, read_manifest
from llmtrain.checkpoint.read import read_state_dict
from llmtrain.config.root import Config
from llmtrain.errors import CheckpointError, DataError
from llmtrain.plan.model_shape import ModelShape, build_model_shape
from llmtrain.stages.run_folder import load_run_config
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer


@dataclass(frozen=True)
class FinishedRun:
    """One checkpoint of a run, with its tokenizer."""

    folder: Path
    config: Config
    manifest: Manifest
    shape: ModelShape
    tokenizer: Tokenizer
    weights: dict[str, torch.Tensor]


def load_finished_run(run_folder: Path, step: int | None) -> FinishedRun:
    """Read a checkpoint of a run.

    Args:
        run_folder: e.g. runs/quickstart.
        step: which checkpoint; None = the newest whole one.

    Raises:
        ConfigError: there is no run.
        CheckpointError: there is no such checkpoint, or it is damaged.
        DataError: the tokenizer is missing or another one.
    """
    config = load_run_config(run_folder)
    checkpoints = run_folder / "checkpoints"
    if step is None:
        checkpoint = find_latest(checkpoints)
        if checkpoint is None:
            raise CheckpointError(f"{checkpoints}: no checkpoint yet. Train first: llmtrain pretrain CONFIG.")
    else:
        checkpoint = find_step(checkpoints, step)
        verify_checkpoint(checkpoint, "full")
    manifest, tokenizer = read_manifest(checkpoint), Tokenizer.load(config.data.folder / "tokenizer")
    trained_with = manifest.progress["data"]["tokenizer"]
    if tokenizer.sha256 != trained_with:
        raise DataError(
            f"tokenizer {config.data.folder / 'tokenizer'}: sha256 is {tokenizer.sha256[:12]}, {checkpoint} was "
            f"trained with {trained_with[:12]}. Put that one back."
        )
    shape = build_model_shape(config.model, tokenizer.vocab_size, config.batch.sequence_length)
    return FinishedRun(run_folder, config, manifest, shape, tokenizer, read_state_dict(checkpoint))
