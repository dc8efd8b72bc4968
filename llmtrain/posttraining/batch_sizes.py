"""How a global batch is cut for ranks, micro-batches and mini-batches, and filled. Starts without torch."""

from typing import Any

from llmtrain.config.ppo import PpoConfig
from llmtrain.config.stage_training import StageTraining
from llmtrain.errors import ConfigError


def count_accumulation(name: str, stage: StageTraining, world_size: int) -> int:
    """Micro-batches of one optimizer step on each rank.

    Args:
        name: of the section, for messages.
        stage: the section.
        world_size: ranks.

    Raises:
        ConfigError: the global batch cannot be cut so; every factor is named.
    """
    mini_batches = stage.mini_batches if isinstance(stage, PpoConfig) else 1
    factor = stage.micro_batch_size * world_size * mini_batches
    if stage.global_batch_size % factor:
        parts = f"{name}.micro_batch_size = {stage.micro_batch_size} x {world_size} ranks"
        if mini_batches > 1:
            parts += f" x {name}.mini_batches = {mini_batches}"
        raise ConfigError(
            f"{name}: {parts} does not divide {name}.global_batch_size = {stage.global_batch_size}. Choose a multiple "
            f"of {factor}."
        )
    return stage.global_batch_size // factor


def fill_up(rows: Any, multiple: int) -> tuple[Any, int]:
    """Rows for whole batches only, so that an epoch has the same steps on any number of ranks.

    Args:
        rows: a Dataset.
        multiple: rows of a batch of all ranks.

    Returns:
        The Dataset with its first rows again at its end, and how many they are.
    """
    missing = -len(rows) % multiple
    return rows.select([*range(len(rows)), *(i % len(rows) for i in range(missing))]), missing
