"""Command `run`: all stages of one configuration in order; what is finished with the same inputs is not done again.

    data -> pretrain -> export -> sft -> reward -> ppo -> report

Why a stage runs is said before it does: nothing is there, an input changed, a stage before it runs, it was asked for.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console

from llmtrain.checkpoint.find import find_latest
from llmtrain.checkpoint.manifest import read_manifest
from llmtrain.config.cluster import load_tracking_cluster
from llmtrain.config.compare import find_changes
from llmtrain.config.loader import LoadedConfig
from llmtrain.config.pipeline import POSTTRAINING, STAGES, PipelineStage, PosttrainingStage
from llmtrain.config.root import Config
from llmtrain.errors import ConfigError, LlmtrainError, MachineError
from llmtrain.process.world import World
from llmtrain.stages.posttraining import launch_stage
from llmtrain.stages.pretrain import launch_pretrain, print_plan
from llmtrain.stages.run_folder import check_continuation, load_run_config, locked_run_folder
from llmtrain.stages.stage_inputs import find_inputs
from llmtrain.stages.training_data import open_training_data
from llmtrain.tracking.mirror import sync_run, wait_for_mirror
from llmtrain.tracking.run_folder import EVENTS_NAME, read_lines, read_summary
from llmtrain.tracking.stage_folder import OLD_NAME, read_stage

logger = logging.getLogger(__name__)

# Sections whose keys decide what pretraining learns.
_TRAINED_WITH = ("model.", "batch.", "optimizer.", "schedule.", "training.", "data.", "precision.", "run.seed")
_LENGTH = ("training.train_steps", "training.train_tokens")  # compared in steps

ASKED = "asked for"


@dataclass(frozen=True)
class Step:
    """What becomes of one stage."""

    name: PipelineStage
    runs: bool
    why: str


def plan_pipeline(
    config: Config, first: PipelineStage | None = None, only: PipelineStage | None = None
) -> Iterator[Step]:
    """What runs and why, one stage after the other; each is looked at when it is asked for, after those before it.

    Args:
        config: the whole run.
        first: this stage is done again; those before it are left alone.
        only: no other stage is looked at.

    Raises:
        ConfigError: a stage is asked for that the configuration does not have, or both `first` and `only` are given.
    """
    if first is not None and only is not None:
        raise ConfigError(f"--from {first} and --only {only} say different things. Give one of them.")
    names = list_stages(config)
    for asked in (first, only):
        if asked is not None and asked not in names:
            raise ConfigError(f"stage '{asked}': the configuration has no such stage. It has {', '.join(names)}.")
    for name in names:
        if name in (first, only):
            yield Step(name, True, ASKED)
        elif only is None and first is not None and STAGES.index(name) < STAGES.index(first):
            yield Step(name, False, f"before --from {first}")
        elif only is None:
            why = _find_reason(config, name)
            if why is None:
                why_not = _describe_finished(config) if name == "pretrain" else "finished with the same inputs"
                yield Step(name, False, why_not)
            else:
                yield Step(name, True, why)


def list_stages(config: Config) -> list[PipelineStage]:
    """The stages that a configuration has, in order."""
    has_data = config.corpus is not None or config.instructions is not None
    later: list[PipelineStage] = [name for name in POSTTRAINING if getattr(config, name) is not None]
    report: list[PipelineStage] = ["report"] if later else []
    before: list[PipelineStage] = ["data"] if has_data else []
    return [*before, "pretrain", "export", *later, *report]


def run_pipeline(
    loaded: LoadedConfig[Config],
    num_ranks: int,
    prepare: Callable[[Config], None],
    first: PipelineStage | None = None,
    only: PipelineStage | None = None,
) -> int:
    """Do all stages; each is planned when those before it are done.

    Args:
        loaded: the whole run.
        num_ranks: of the training stages, on this machine.
        prepare: the stage `data`.
        first: do this stage again, and those after it whose inputs that changes.
        only: do this stage alone.

    Returns:
        0, or the exit code of the first stage that did not end well.
    """
    load_tracking_cluster(loaded.config.tracking.cluster)
    console = Console(stderr=True, highlight=False)
    for step in plan_pipeline(loaded.config, first, only):
        console.print(f"[bold]{step.name}[/bold]: {step.why}")
        if step.runs and (code := _run_step(step.name, loaded, num_ranks, prepare, is_new=step.why == ASKED)):
            return code
    return 0


def print_pipeline(
    loaded: LoadedConfig[Config], num_ranks: int, first: PipelineStage | None, only: PipelineStage | None
) -> None:
    """The plan of pretraining, and what would run and why; standard output.

    What depends on a stage that would run is looked at when it has.
    """
    print_plan(loaded, num_ranks)
    console = Console(soft_wrap=True, highlight=False)
    before: str | None = None
    for step in plan_pipeline(loaded.config, first, only):
        is_open = before is not None and step.name != "report" and not step.runs
        why = f"depends on what {before} makes; until then: {step.why}" if is_open else step.why
        console.print(f"{step.name:<9} {'run' if step.runs else 'maybe' if is_open else 'skip':<5}  {why}")
        before = step.name if step.runs and step.name != "data" else before


def _find_reason(config: Config, name: PipelineStage) -> str | None:
    """Why a stage has to run; None when it does not."""
    match name:
        case "data":
            return "does what is missing"
        case "pretrain":
            return _find_reason_to_pretrain(config)
        case "export":
            return _find_reason_to_export(config)
        case "report":
            return "drawn from the summaries"
        case _:
            return _find_reason_of_stage(config, name)


def _find_reason_to_pretrain(config: Config) -> str | None:
    folder = config.run.folder
    events = read_lines(folder / EVENTS_NAME)
    if not events:
        return "not started"
    summary = read_summary(folder)
    if events[-1]["event"] != "finished" or not summary:
        return "not finished"
    step_tokens = config.batch.global_batch_size * config.batch.sequence_length
    wanted = config.training.train_steps or -(-(config.training.train_tokens or 0) // step_tokens)
    if summary["train_steps"] != wanted:
        return f"{summary['train_steps']} steps done of {wanted}"
    check_continuation(config)
    return None


def _describe_finished(config: Config) -> str:
    """What a finished pretraining was made with, as far as that is not what the configuration says now."""
    changes = [
        key
        for key, *_ in find_changes(load_run_config(config.run.folder), config)
        if key.startswith(_TRAINED_WITH) and key not in _LENGTH
    ]
    checkpoint = find_latest(config.run.folder / "checkpoints")
    if checkpoint is not None and (config.data.folder / "tokenizer").is_dir():
        trained = read_manifest(checkpoint).progress["data"]
        found = open_training_data(config.data.model_copy(update={"verify": "size"}), World()).identity
        changes += [
            f"data: {name}" for name in sorted(trained.keys() | found.keys()) if trained.get(name) != found.get(name)
        ]
    if not changes:
        return "finished with the same inputs"
    return f"finished, with other values of {', '.join(changes)}; to train with these choose another run.name"


def _find_reason_to_export(config: Config) -> str | None:
    card = config.run.folder / "export" / "README.md"
    checkpoint = find_latest(config.run.folder / "checkpoints")
    if checkpoint is None:
        return "pretraining made no checkpoint yet"
    if not card.is_file():
        return "not exported"
    digest = read_manifest(checkpoint).weights_digest
    return None if digest in card.read_text(encoding="utf-8") else "the newest checkpoint is another one"


def _find_reason_of_stage(config: Config, name: PosttrainingStage) -> str | None:
    before = read_stage(config.run.folder / name)
    if not before:
        return "not started"
    try:
        inputs = find_inputs(config, name)
    except LlmtrainError as error:
        return str(error)
    if before["inputs"] != inputs.digest:
        return f"changed: {inputs.list_changes(before)}"
    return None if before["finished"] == inputs.digest else "not finished"


def _run_step(
    name: PipelineStage,
    loaded: LoadedConfig[Config],
    num_ranks: int,
    prepare: Callable[[Config], None],
    is_new: bool,
) -> int:
    config = loaded.config
    match name:
        case "data":
            prepare(config)
        case "pretrain":
            return launch_pretrain(loaded, num_ranks)
        case "export":
            from llmtrain.stages.main_job import finish_main_job

            finish_main_job(config)
        case "report":
            from llmtrain.stages.alignment_report import write_alignment_report

            write_alignment_report(config.run.folder)
            _send_report(config)
        case _:
            _put_aside(config, name, is_new)
            return launch_stage(config, name, num_ranks)
    return 0


def _send_report(config: Config) -> None:
    """Put the report beside the run of pretraining in MLflow; a server that is away costs nothing else."""
    if not config.tracking.mlflow:
        return
    try:
        sync_run(config.run.folder)
    except MachineError as error:
        logger.warning("%s", error)


def _put_aside(config: Config, name: PosttrainingStage, is_new: bool) -> None:
    """Move the folder of a stage that was made from other inputs, or is to be done again, out of the way.

    Raises:
        ConfigError: the stage cannot start, or another process is using its folder; nothing was moved.
        MachineError: a mirror is still at work there, after a minute.
    """
    folder = config.run.folder / name
    before, inputs = read_stage(folder), find_inputs(config, name)
    if not before or (not is_new and before["inputs"] == inputs.digest):
        return
    old = config.run.folder / OLD_NAME / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    old.parent.mkdir(exist_ok=True)
    with locked_run_folder(folder):
        wait_for_mirror(folder)
        folder.rename(old)
    logger.info("%s: put aside as %s", folder, old)
