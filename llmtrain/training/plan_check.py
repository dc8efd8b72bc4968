"""Measures on every rank what a plan foretells, and writes both side by side.

The second step of an attempt is watched: the first one sends and allocates things that others do not. Its messages are
counted, and the most that tensors held; on a GPU the allocator knows that of all steps. Each save then writes
`plan.json` and metrics of group `plan`; the first one of an attempt every rank's numbers, in `plan_ranks.json`.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from llmtrain.checkpoint.find import list_checkpoints
from llmtrain.config.cluster import ClusterConfig, find_cluster_of_device, load_tracking_cluster
from llmtrain.config.root import Config
from llmtrain.parallel.layout import Layout
from llmtrain.parallel.traffic import TrafficCounter
from llmtrain.plan.build import Plan
from llmtrain.plan.memory import GIB, compute_checkpoint_bytes, list_rank_memories
from llmtrain.plan.step_time import compute_step_time
from llmtrain.plan.traffic import Traffic, compute_traffic
from llmtrain.plan.workload import Workload, build_workload
from llmtrain.tracking.memory import HostTensors
from llmtrain.tracking.planned import (
    Compared,
    keep_measured,
    list_plan_metrics,
    read_plan,
    write_plan,
    write_rank_plans,
)
from llmtrain.tracking.run_folder import RunWriter
from llmtrain.training.resume import CHECKPOINTS_NAME

logger = logging.getLogger(__name__)

_WATCHED_STEP = 2


@dataclass(frozen=True)
class RankMeasurement:
    """What one rank has found; None where it could not be told."""

    rank: int
    pipeline_rank: int
    peak_bytes: int | None
    sent: Traffic | None


@dataclass(frozen=True)
class Planned:
    """What is foretold of a run; bytes of each pipeline rank."""

    cluster: str | None
    step_seconds: float | None
    checkpoint_bytes: float
    peak_bytes: tuple[float, ...]
    sent: tuple[Traffic, ...]


class PlanCheck:
    """Planned beside measured, for one rank."""

    def __init__(
        self, config: Config, plan: Plan, layout: Layout, device: torch.device, writer: RunWriter | None
    ) -> None:
        """Plan the run, on the rank that writes.

        Args:
            config: the resolved configuration.
            plan: its derived numbers.
            layout: this rank's place.
            device: of this rank.
            writer: the run folder; None on ranks that do not write.

        Raises:
            ConfigError: `tracking.cluster` names none.
        """
        self._config, self._layout, self._writer = config, layout, writer
        self._device, self._is_cpu = device, device.type == "cpu"
        self._steps = 0
        self._host_bytes: int | None = None
        self._sent: Traffic | None = None
        self._planned: Planned | None = None
        self._earlier: dict[str, Any] = {}
        self._has_told_ranks = False
        if writer is not None:
            self._earlier = read_plan(config.run.folder)
            self._planned = _plan_or_warn(build_workload(config, plan), find_cluster(config, device), self._is_cpu)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around each optimizer step."""
        self._steps += 1
        # A compiled step would be compiled anew, and differently, under a dispatch mode.
        if self._steps != _WATCHED_STEP or self._config.training.compile:
            yield
            return
        counter, tensors = TrafficCounter(self._layout), HostTensors()
        with counter, tensors if self._is_cpu else nullcontext():
            yield
        self._host_bytes = tensors.peak_bytes
        if not counter.unknown:
            self._sent = counter.traffic
        elif self._writer is not None:
            logger.warning("messages are not counted: torch sends by %s", ", ".join(sorted(counter.unknown)))

    def record(self, step: int, step_seconds: float | None) -> None:
        """Write what is known by now; all ranks call it, after a save.

        Args:
            step: optimizer steps taken.
            step_seconds: measured; None before the first interval is over.

        Raises:
            MachineError: the disk is full or the folder cannot be written.
        """
        peak = self._host_bytes if self._is_cpu else torch.cuda.max_memory_allocated(self._device)
        own = RankMeasurement(self._layout.rank, self._layout.pipeline_parallel_rank, peak, self._sent)
        found: list[RankMeasurement | None] = [None] * self._layout.world_size
        dist.gather_object(own, found if self._layout.rank == 0 else None)
        if self._writer is None or self._planned is None:
            return
        measured = [one for one in found if one is not None]
        size = _measure_newest_checkpoint(self._config.run.folder / CHECKPOINTS_NAME)
        record = {"step": step, **compare_with_plan(self._planned, measured, step_seconds, size)}
        write_plan(self._config.run.folder, keep_measured(record, self._earlier))
        self._writer.log_metrics(step, list_plan_metrics(record))
        if self._steps >= _WATCHED_STEP and not self._has_told_ranks:
            write_rank_plans(self._config.run.folder, list_rank_comparisons(self._planned, measured))
            self._has_told_ranks = True


def find_cluster(config: Config, device: torch.device) -> ClusterConfig | None:
    """The cluster of `tracking.cluster`, or the described one with such devices; None when there is none.

    Raises:
        ConfigError: `tracking.cluster` names none.
    """
    name = "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
    return load_tracking_cluster(config.tracking.cluster) or find_cluster_of_device(name)


def plan_run(work: Workload, cluster: ClusterConfig | None, is_cpu: bool) -> Planned:
    """What is foretold of a run.

    Args:
        work: the run.
        cluster: what it runs on; None = time is not planned.
        is_cpu: ranks run on processors.
    """
    return Planned(
        cluster=cluster.name if cluster is not None else None,
        step_seconds=compute_step_time(work, cluster).total if cluster is not None else None,
        checkpoint_bytes=compute_checkpoint_bytes(work.shape),
        peak_bytes=tuple(memory.allocated for memory in list_rank_memories(work, is_cpu)),
        sent=tuple(compute_traffic(work, rank) for rank in range(work.pipeline_parallel_size)),
    )


def _plan_or_warn(work: Workload, cluster: ClusterConfig | None, is_cpu: bool) -> Planned | None:
    try:
        return plan_run(work, cluster, is_cpu)
    except Exception as error:  # noqa: BLE001  whatever planning raises: a run never depends on it
        logger.warning("planned numbers are not recorded: %s: %s", type(error).__name__, error)
        return None


def compare_with_plan(
    planned: Planned, measured: Sequence[RankMeasurement], step_seconds: float | None, checkpoint_bytes: int | None
) -> dict[str, Any]:
    """The record of `plan.json`, but for its step: memory and messages are those of the rank with most.

    Args:
        planned: what was foretold.
        measured: by all ranks, in order.
        step_seconds: measured; None = not yet.
        checkpoint_bytes: of the newest checkpoint; None = there is none yet.
    """
    largest = max(measured, key=lambda one: one.peak_bytes or 0)
    busiest = max(measured, key=lambda one: one.sent.total if one.sent is not None else 0.0)
    sent = busiest.sent.total if busiest.sent is not None else None
    return {
        "cluster": planned.cluster,
        "step_seconds": Compared(planned.step_seconds, step_seconds).to_dict(),
        "peak_memory_gib": _compare_gib(planned.peak_bytes[largest.pipeline_rank], largest.peak_bytes),
        "checkpoint_gib": _compare_gib(planned.checkpoint_bytes, checkpoint_bytes),
        "sent_gib": _compare_gib(planned.sent[busiest.pipeline_rank].total, sent),
    }


def list_rank_comparisons(planned: Planned, measured: Sequence[RankMeasurement]) -> list[dict[str, Any]]:
    """Memory and messages of every rank, by group; arguments as of `compare_with_plan`."""
    return [
        {
            "rank": one.rank,
            "pipeline_rank": one.pipeline_rank,
            "peak_memory_gib": _compare_gib(planned.peak_bytes[one.pipeline_rank], one.peak_bytes),
            "sent_gib": {
                group: _compare_gib(size, asdict(one.sent)[group] if one.sent is not None else None)
                for group, size in asdict(planned.sent[one.pipeline_rank]).items()
            },
        }
        for one in measured
    ]


def _measure_newest_checkpoint(folder: Path) -> int | None:
    """Bytes of its tensor files; None where there is none, or it gives way to a newer one this moment."""
    try:
        for checkpoint in list_checkpoints(folder):
            return sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")) or None
    except FileNotFoundError:
        pass
    return None


def _compare_gib(planned: float, measured: float | None) -> dict[str, float | None]:
    return Compared(planned / GIB, None if measured is None else measured / GIB).to_dict()
