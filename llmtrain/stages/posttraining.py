"""Commands `sft`, `reward` and `ppo`: one stage of post-training as one of the ranks.

    RUN/sft/      config.yaml, stage.json, metrics.jsonl, samples.jsonl, events.jsonl,
                  checkpoints/, model/, summary.json, summary.md
    RUN/reward/   the same
    RUN/ppo/      the same, and value_model/

A stage is known by the hash of all that decides its result; one that is finished is not run again.
"""

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtrain.config.loader import dump_config
from llmtrain.config.pipeline import PosttrainingStage
from llmtrain.config.root import PosttrainingConfig
from llmtrain.errors import EXIT_SAVED_AFTER_SIGNAL, ConfigError
from llmtrain.posttraining.batch_sizes import count_accumulation
from llmtrain.process.launch import run_ranks_here
from llmtrain.process.logs import configure_logging
from llmtrain.process.signals import StopRequest
from llmtrain.process.world import World
from llmtrain.shards.manifest import write_atomically
from llmtrain.stages.run_folder import CONFIG_NAME, locked_run_folder
from llmtrain.stages.stage_inputs import StageInputs, fill_in, find_inputs
from llmtrain.tracking.run_folder import RunWriter, explain_refusal
from llmtrain.tracking.stage_folder import STAGE_NAME, read_stage

if TYPE_CHECKING:
    from llmtrain.posttraining.context import StageContext

logger = logging.getLogger(__name__)


def launch_stage(config: PosttrainingConfig, name: PosttrainingStage, num_ranks: int) -> int:
    """Check, then run the stage on this machine, in processes of its own.

    Returns:
        The exit code.
    """
    inputs = find_inputs(config, name)
    count_accumulation(name, getattr(config, name), num_ranks)
    folder = config.run.folder / name
    with locked_run_folder(folder):
        _open_folder(config, inputs, folder)
    return run_ranks_here([name, str(folder / CONFIG_NAME)], num_ranks, folder / "logs")


def run_stage(config: PosttrainingConfig, name: PosttrainingStage, world: World) -> int:
    """Run the stage as one of the ranks.

    Returns:
        0, or 75 when a signal stopped it after saving.
    """
    configure_logging(world)
    folder = config.run.folder / name
    inputs = find_inputs(config, name)
    if read_stage(folder).get("finished") == inputs.digest:
        if world.is_first:
            logger.info("%s: finished before with the same inputs", folder)
        return 0

    from llmtrain.posttraining.context import BEST, StageContext
    from llmtrain.posttraining.start import joined_ranks

    section = getattr(fill_in(config), name)
    count_accumulation(name, section, world.world_size)
    with ExitStack() as stack:
        device = stack.enter_context(joined_ranks(world, section))
        writer = stack.enter_context(_own_folder(config, inputs, folder, world))
        context = StageContext(name, fill_in(config), folder, inputs.models, world, device, StopRequest(), writer)
        started = time.time()
        summary = _train(context, section)
        if summary is None:
            context.log_event("stopped")
            return EXIT_SAVED_AFTER_SIGNAL
        if writer is not None:
            from llmtrain.posttraining.summary import write_summary

            write_summary(context, summary, seconds=time.time() - started)
            if name == "ppo":
                from llmtrain.stages.alignment_report import PICTURE_NAME, draw_alignment

                draw_alignment(summary, folder / PICTURE_NAME)
            writer.log_event("finished")
            _remember(folder, inputs, finished=True)
            shutil.rmtree(folder / BEST, ignore_errors=True)
    return 0


def _train(context: "StageContext", section: Any) -> dict[str, Any] | None:
    match context.name:
        case "sft":
            from llmtrain.posttraining.sft import train_sft

            return train_sft(context, section)
        case "reward":
            from llmtrain.posttraining.reward import train_reward

            return train_reward(context, section)
        case _:
            from llmtrain.posttraining.ppo import train_ppo

            return train_ppo(context, section)


@contextmanager
def _own_folder(
    config: PosttrainingConfig, inputs: StageInputs, folder: Path, world: World
) -> Iterator[RunWriter | None]:
    """Rank 0 holds the folder, writes into it, and has it mirrored to MLflow."""
    from llmtrain.tracking.mirror import start_mirror

    if not world.is_first:
        yield None
        return
    with ExitStack() as stack:
        stack.enter_context(locked_run_folder(folder))
        _open_folder(config, inputs, folder)
        writer = RunWriter(folder)
        stack.callback(writer.close)
        if config.tracking.mlflow:
            stack.callback(start_mirror(folder, config.tracking.system_interval_seconds).finish)
        yield writer


def _open_folder(config: PosttrainingConfig, inputs: StageInputs, folder: Path) -> None:
    """Write what the stage is; the caller holds the folder.

    Raises:
        ConfigError: it holds work made from other inputs.
    """
    before = read_stage(folder)
    if before and before["inputs"] != inputs.digest:
        changed = inputs.list_changes(before)
        raise ConfigError(
            f"{folder}: holds a stage made from other inputs: {changed}. Choose another run.name, remove the "
            "folder, or let `llmtrain run` do it again, which puts the old one aside."
        )
    with explain_refusal(folder / CONFIG_NAME):
        write_atomically(folder / CONFIG_NAME, dump_config(config).encode())
        _remember(folder, inputs, finished=before.get("finished") == inputs.digest)


def _remember(folder: Path, inputs: StageInputs, finished: bool) -> None:
    stage = inputs.to_dict() | {"finished": inputs.digest if finished else None}
    write_atomically(folder / STAGE_NAME, (json.dumps(stage, indent=1) + "\n").encode())
