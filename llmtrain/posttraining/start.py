"""Join the ranks of a stage, find where it goes on, and leave them."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llmtrain.config.stage_training import StageTraining
from llmtrain.parallel.start import explain_timeout, pick_device, start_distributed, stop_distributed
from llmtrain.posttraining.checkpoints import check_ranks, find_checkpoint, remove_torn
from llmtrain.posttraining.context import StageContext
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


def start_or_resume(context: StageContext) -> str | None:
    """The checkpoint to go on from; the writer forgets what came after it."""
    context.wait_for_all()
    if context.world.is_first:
        remove_torn(context.checkpoints)
    context.wait_for_all()
    checkpoint = find_checkpoint(context.checkpoints)
    if checkpoint is not None:
        check_ranks(checkpoint, context.world.world_size)
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint is not None else 0
    if context.writer is not None:
        context.writer.resume(step if checkpoint is not None else -1)
        context.log_event("started", first_step=step, world_size=context.world.world_size)
    context.stop.install()
    return str(checkpoint) if checkpoint is not None else None


def _quieten() -> None:
    """Silence what libraries say about choices that are made here on purpose, and their progress bars."""
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    # Packing without flash attention: a test shows that documents do not see each other (see docs/posttraining.md).
    logging.getLogger("trl.trainer.sft_trainer").setLevel(logging.ERROR)
    logging.getLogger("accelerate").setLevel(logging.ERROR)
