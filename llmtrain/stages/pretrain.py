"""Stage `pretrain`: assemble a run and train.

launch_pretrain   the command on one machine: check what can be checked, then start the ranks
run_rank          one rank: data, plan, layout, engine, resume, loop, summary
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rich.box
from rich.console import Console
from rich.table import Table

from llmtrain.config.cluster import load_tracking_cluster
from llmtrain.config.loader import LoadedConfig
from llmtrain.config.root import Config
from llmtrain.config.show import describe_config
from llmtrain.errors import EXIT_SAVED_AFTER_SIGNAL, DivergenceError
from llmtrain.plan.build import Plan, build_plan
from llmtrain.plan.rank_map import describe_groups, describe_stages, find_split_groups
from llmtrain.process.hang_report import Phase
from llmtrain.process.launch import run_ranks_here
from llmtrain.process.logs import configure_logging
from llmtrain.process.signals import StopRequest
from llmtrain.process.watchdog import Watchdog
from llmtrain.process.world import World
from llmtrain.stages.run_folder import CONFIG_NAME, locked_run_folder, start_run_folder
from llmtrain.stages.training_data import TrainingData, open_training_data
from llmtrain.stages.vocabulary import find_vocab_size

if TYPE_CHECKING:
    import torch

    from llmtrain.tracking.run_folder import RunWriter

logger = logging.getLogger(__name__)


def print_plan(loaded: LoadedConfig[Config], world_size: int) -> None:
    """What a run would do: every key with its origin, then the derived numbers. Standard output."""
    console = Console(soft_wrap=True, highlight=False)
    table = Table("key", "value", "from", box=rich.box.SIMPLE_HEAD)
    for row in describe_config(loaded):
        table.add_row(*row)
    console.print(table)
    plan = build_plan(loaded.config, world_size, find_vocab_size(loaded.config))
    load_tracking_cluster(loaded.config.tracking.cluster)
    console.print(_plan_table(plan))
    if world_size > 1:
        groups = Table(box=rich.box.SIMPLE_HEAD, show_header=False)
        for name, text in describe_groups(plan):
            groups.add_row(name, text)
        console.print(groups)
        stages = Table("pipeline rank", "ranks", "layers", "parameters of a rank", box=rich.box.SIMPLE_HEAD)
        for stage in describe_stages(plan):
            stages.add_row(*stage)
        console.print(stages)


def launch_pretrain(loaded: LoadedConfig[Config], num_ranks: int) -> int:
    """Check, then start ranks on this machine.

    Returns:
        The exit code of the run: 0, 75 (saved after a signal), or that of the rank that failed.
    """
    config = loaded.config
    load_tracking_cluster(config.tracking.cluster)
    plan = build_plan(config, num_ranks, open_training_data(config.data, World()).tokenizer.vocab_size)
    with locked_run_folder(config.run.folder):
        start_run_folder(config)
    Console(stderr=True).print(_plan_table(plan))
    resolved = config.run.folder / CONFIG_NAME
    return run_ranks_here(["pretrain", str(resolved)], num_ranks, config.run.folder / "logs")


def run_rank(config: Config, world: World) -> int:
    """Train as one of the ranks.

    Returns:
        0, or 75 when a signal stopped the run after saving.
    """
    from llmtrain.parallel.start import explain_timeout, start_distributed, stop_distributed
    from llmtrain.stages.pretrain_parts import check_ranks_agree, explain_memory

    configure_logging(world)
    if world.is_first:
        load_tracking_cluster(config.tracking.cluster)
    data = open_training_data(config.data, world)
    plan = build_plan(config, world.world_size, data.tokenizer.vocab_size)
    if world.is_first and (warning := find_split_groups(plan, world.local_world_size)):
        logger.warning("%s", warning)
    timeout_seconds = config.parallel.communication_timeout_seconds
    watchdog = _build_watchdog(config, world)
    watchdog.start()
    try:
        device = start_distributed(world, timeout_seconds, _find_meeting_seconds(config))
        check_ranks_agree(config, data)
        with (
            _own_run_folder(config, world) as writer,
            _mirrored(config, writer),
            explain_memory(config),
            explain_timeout(world, timeout_seconds),
        ):
            steps = _train(config, plan, world, device, data, writer, watchdog)
    finally:
        stop_distributed()
        watchdog.close()
    return 0 if steps == plan.train_steps else EXIT_SAVED_AFTER_SIGNAL


def _train(
    config: Config,
    plan: Plan,
    world: World,
    device: "torch.device",
    data: TrainingData,
    writer: "RunWriter | None",
    watchdog: Watchdog,
) -> int:
    """Assemble and train on one rank; returns the optimizer steps taken in all."""
    from llmtrain.data.loader import build_loader
    from llmtrain.parallel.engine import Engine
    from llmtrain.parallel.layout import build_layout
    from llmtrain.parallel.start import limit_waiting
    from llmtrain.stages.pretrain_parts import build_evaluation, build_meter, finish_run, prepare_packing
    from llmtrain.tracking.console import TrainingConsole
    from llmtrain.training.divergence import DivergenceMonitor
    from llmtrain.training.loop import TrainingRun, train
    from llmtrain.training.plan_check import PlanCheck
    from llmtrain.training.recorder import Recorder
    from llmtrain.training.replicas import check_replicas
    from llmtrain.training.resume import Saver
    from llmtrain.training.sampler import sample_texts

    started = time.time()
    layout = build_layout(plan, world.rank)
    plan_check = PlanCheck(config, plan, layout, device, writer)
    prepare_packing(config, plan, data)
    loader = build_loader(config, plan, data.train, layout.data_parallel_rank, pin_memory=device.type == "cuda")
    sources = loader.order.mixture.names
    engine = Engine(config, plan, layout, device, len(sources))
    limit_waiting(config.parallel.communication_timeout_seconds)
    validation, batches = build_evaluation(config, plan, data, sources, layout.data_parallel_rank)
    meter = build_meter(config, plan, device, loader)
    monitor = DivergenceMonitor(config.training.divergence_loss_increase, config.training.divergence_patience_steps)
    recorder = Recorder(sources, data.train, config.training.log_every_steps, plan.train_steps, writer, meter)
    saver = Saver(config, plan, recorder, monitor, data.identity, loader.order.mixture)
    first_step = saver.resume_or_start(engine)
    if writer is not None:
        writer.resume(first_step)
        writer.log_event("started", first_step=first_step, world_size=plan.world_size, zero_stage=plan.zero_stage)
        recorder.console = TrainingConsole(first_step, plan.train_steps)
    stop = StopRequest()
    stop.install()
    run = TrainingRun(
        config,
        plan,
        engine,
        loader,
        recorder,
        monitor,
        stop,
        watchdog,
        check_replicas=lambda step: check_replicas(engine, step),
        evaluate=lambda: engine.evaluate(batches),
        sample=lambda: sample_texts(engine, data.tokenizer, config.sampling, config.run.seed),
        saver=saver,
        plan_check=plan_check,
    )
    try:
        steps = train(run, first_step)
        watchdog.enter("end", steps)
    except DivergenceError as error:
        if writer is not None:
            writer.log_event("diverged", message=str(error))
        watchdog.enter("save")  # one may still be written, and has the time of a save for it
        raise
    finally:
        saver.close()
        loader.close()
        recorder.close()
    if writer is not None:
        writer.log_event("finished" if steps == plan.train_steps else "stopped", step=steps)
        # A run that was finished before has measured nothing this time.
        if steps == plan.train_steps and not (steps == first_step and writer.has_summary):
            finish_run(config, plan, data, validation, meter, writer, seconds=time.time() - started)
    return steps


def _build_watchdog(config: Config, world: World) -> Watchdog:
    limits = config.watchdog
    seconds: dict[Phase, float | None] = {
        "start": limits.start_seconds,
        "step": limits.step_seconds,
        "evaluate": limits.evaluate_seconds,
        "sample": limits.sample_seconds,
        "save": limits.save_seconds,
        "end": limits.end_seconds,
    }
    return Watchdog(seconds, world.rank, config.run.folder)


def _find_meeting_seconds(config: Config) -> float:
    """How long ranks wait for one another at start: so short that the message comes before the watchdog ends them."""
    start, seconds = config.watchdog.start_seconds, config.parallel.communication_timeout_seconds
    return seconds if start is None else min(seconds, start / 2)


@contextmanager
def _own_run_folder(config: Config, world: World) -> "Iterator[RunWriter | None]":
    """Rank 0 holds the run folder and writes into it; the others write nothing."""
    from llmtrain.tracking.run_folder import RunWriter

    if not world.is_first:
        yield None
        return
    with locked_run_folder(config.run.folder):
        start_run_folder(config)
        writer = RunWriter(config.run.folder)
        try:
            yield writer
        finally:
            writer.close()


@contextmanager
def _mirrored(config: Config, writer: "RunWriter | None") -> Iterator[None]:
    """Mirror the run folder to MLflow while it is written; the last thing the mirror sees is how the run ended."""
    from llmtrain.tracking.mirror import start_mirror

    if writer is None or not config.tracking.mlflow:
        yield
        return
    mirror = start_mirror(config.run.folder, config.tracking.system_interval_seconds)
    try:
        yield
    finally:
        mirror.finish()


def _plan_table(plan: Plan) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD, show_header=False)
    for name, value in plan.describe():
        table.add_row(name, value)
    return table
