"""What the ranks of an engine really send in a step. For tests of the plan."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from llmtrain.parallel.engine import Engine
from llmtrain.parallel.layout import Layout, build_layout
from llmtrain.parallel.start import prepare_deepspeed
from llmtrain.parallel.traffic import TrafficCounter
from llmtrain.plan.build import Plan, build_plan
from llmtrain.plan.traffic import Traffic
from llmtrain.plan.zero3 import Limits
from tests.helpers.configs import load_tiny_config
from tests.parallel.test_engine import make_batches

_STEPS_BEFORE = 2
"""Stages tell each other the shapes of messages in the first step; ZeRO 3 knows the order of its weights after two
micro-batches."""


class Sent(NamedTuple):
    """What one rank did in the third step."""

    pipeline_rank: int
    traffic: Traffic
    most_live: int
    """Elements that ZeRO 3 had gathered at one time, at most, by DeepSpeed's own count."""


def measure_traffic(folder: str, overrides: list[str], limits: Limits | None = None) -> Sent:
    """What this rank sends in the third step.

    Args:
        folder: for the configuration.
        overrides: of the tiny configuration.
        limits: of ZeRO 3; None = DeepSpeed's defaults.
    """
    engine, plan, layout = build(folder, overrides)
    live: list[int] = []
    if limits is not None:
        coordinator = engine.deepspeed.optimizer.parameter_offload.get_param_coordinator()
        coordinator._PartitionedParameterCoordinator__max_reuse_dist_in_numel = limits.reuse_distance
        coordinator._PartitionedParameterCoordinator__prefetch_bucket_sz = limits.prefetch
        _watch(coordinator, live)
    for step in range(_STEPS_BEFORE):
        train(engine, plan, layout, step)
    counter = TrafficCounter(layout)
    live.clear()
    with counter:
        train(engine, plan, layout, _STEPS_BEFORE)
    return Sent(layout.pipeline_parallel_rank, counter.traffic, max(live, default=0))


def _watch(coordinator: Any, live: list[int]) -> None:
    """Note how many elements are gathered after each fetch."""
    fetch = coordinator.fetch_sub_module

    def watched(*args: Any, **kwargs: Any) -> None:
        fetch(*args, **kwargs)
        live.append(coordinator._PartitionedParameterCoordinator__n_available_params)

    coordinator.fetch_sub_module = watched


def measure_all_traffic(folder: str, cases: list[tuple[list[str], Limits | None]]) -> list[Sent]:
    """`measure_traffic` of several cases, in one start of the ranks."""
    prepare_deepspeed(torch.device("cpu"))
    return [measure_traffic(folder, overrides, limits) for overrides, limits in cases]


def build(folder: str, overrides: list[str]) -> tuple[Engine, Plan, Layout]:
    """An engine of the tiny configuration."""
    config = load_tiny_config(Path(folder), *overrides)
    plan = build_plan(config, dist.get_world_size(), 300)
    layout = build_layout(plan, dist.get_rank())
    return Engine(config, plan, layout, torch.device("cpu"), num_sources=2), plan, layout


def train(engine: Engine, plan: Plan, layout: Layout, step: int) -> None:
    """One optimizer step."""
    engine.train_step(make_batches(plan, layout.data_parallel_rank, step), 1e-3, stop_requested=False)
