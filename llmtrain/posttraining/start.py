"""Join the ranks of a stage, and leave them."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llmtrain.config.stage_training import StageTraining
from llmtrain.parallel.start import explain_timeout, pick_device, start_distributed, stop_distributed
from llmtrain.posttraining.trainer_arguments import announce_world
from llmtrain.process.world import World

_TIMEOUT_SECONDS = 600.0


@contextmanager
def joined_ranks(world: World, section: StageTraining) -> Iterator[torch.device]:
    """The device of this rank, with the process group open where the stage needs one."""
    announce_world(world, section)
    _quieten()
    if world.world_size == 1 and section.zero_stage == 0:
        yield pick_device(world)
        return
    try:
        device = start_distributed(world, _TIMEOUT_SECONDS)
        with explain_timeout(world, _TIMEOUT_SECONDS):
            yield device
    finally:
        stop_distributed()


def _quieten() -> None:
    """Silence what libraries say about choices that are made here on purpose, and their progress bars."""
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    # Packing without flash attention: a test shows that documents do not see each other (see docs/posttraining.md).
    logging.getLogger("trl.trainer.sft_trainer").setLevel(logging.ERROR)
    logging.getLogger("accelerate").setLevel(logging.ERROR)
