"""Which checkpoints of a run stay.

In: the folder and section `checkpoint`. Out: a folder that holds the newest, the periodic and the best. Only
checkpoints that are whole (by size) count and only they are deleted: a damaged one is left for a person to look at.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from llmtrain.checkpoint.commit import discard_checkpoint
from llmtrain.checkpoint.find import list_checkpoints, verify_checkpoint
from llmtrain.config.checkpoint import CheckpointConfig
from llmtrain.errors import CheckpointError

logger = logging.getLogger(__name__)


def choose_steps_to_keep(validation_losses: Mapping[int, float | None], config: CheckpointConfig) -> set[int]:
    """Steps that the rules keep; the newest is always among them.

    Args:
        validation_losses: step -> validation loss, None where it was not measured.
        config: section `checkpoint`: `keep_last`, `keep_every_steps`, `keep_best`.
    """
    kept = set(sorted(validation_losses)[-config.keep_last :])
    if config.keep_every_steps is not None:
        kept |= {step for step in validation_losses if step % config.keep_every_steps == 0}
    measured = {step: loss for step, loss in validation_losses.items() if loss is not None}
    if config.keep_best and measured:
        kept.add(min(measured, key=lambda step: (measured[step], -step)))
    return kept


def apply_retention(folder: Path, config: CheckpointConfig) -> list[Path]:
    """Delete the checkpoints that no rule keeps. One rank calls it.

    Args:
        folder: holds the checkpoints of a run.
        config: section `checkpoint`.

    Returns:
        The deleted directories, oldest first.
    """
    whole: dict[int, Path] = {}
    losses: dict[int, float | None] = {}
    for checkpoint in reversed(list_checkpoints(folder)):
        try:
            manifest = verify_checkpoint(checkpoint, "size")
        except CheckpointError as error:
            logger.warning("%s is not whole and is left as it is: %s", checkpoint.name, error)
            continue
        whole[manifest.step] = checkpoint
        losses[manifest.step] = manifest.validation_loss
    kept = choose_steps_to_keep(losses, config)
    discarded = []
    for step, checkpoint in whole.items():
        if step not in kept:
            try:
                discard_checkpoint(checkpoint)
            except OSError as error:
                logger.warning("%s could not be deleted: %s", checkpoint, error)
            else:
                discarded.append(checkpoint)
    return discarded
