"""Single keys that lower the memory of a run which does not fit: each is tried as a run would be before it is named.

In: `Config`, `Estimate`. Out: `section.key=value`, the largest saving first.
"""

from collections.abc import Iterator
from typing import Any

from llmtrain.config.root import Config
from llmtrain.errors import ConfigError
from llmtrain.plan.build import build_plan
from llmtrain.plan.estimate import Estimate
from llmtrain.plan.feasible import find_obstacles
from llmtrain.plan.memory import list_rank_memories
from llmtrain.plan.rank_map import find_split_groups
from llmtrain.plan.search import apply_overlay
from llmtrain.plan.workload import build_workload

_MOST = 3


def suggest_changes(config: Config, estimate: Estimate) -> list[str]:
    """Changes that the same ranks can run and that need less memory on the rank with most, the most effective first.

    Args:
        config: the resolved configuration.
        estimate: what was foretold of it.
    """
    found = []
    for key, value in _list_candidates(config):
        size = _compute_size(config, estimate, key, value)
        if size is not None and size < estimate.worst.total:
            found.append((size, f"{key}={value}"))
    return [text for _, text in sorted(found)[:_MOST]]


def _list_candidates(config: Config) -> Iterator[tuple[str, Any]]:
    batch, parallel = config.batch, config.parallel
    yield "training.activation_recompute", "full"
    yield "precision.parameter_dtype", "bfloat16"
    if batch.micro_batch_size > 1:
        yield "batch.micro_batch_size", batch.micro_batch_size // 2
    yield "parallel.zero_stage", 3 if parallel.zero_stage else 1
    yield "parallel.tensor_parallel_size", 2 * parallel.tensor_parallel_size
    yield "parallel.pipeline_parallel_size", 2 * parallel.pipeline_parallel_size


def _compute_size(config: Config, estimate: Estimate, key: str, value: Any) -> float | None:
    """Bytes of the rank that needs most once one key is changed; None where that is no run, or a slow one."""
    section, name = key.split(".")
    plan, cluster = estimate.plan, estimate.cluster
    try:
        changed = apply_overlay(config, {section: {name: value}})
        if find_obstacles(changed, plan.world_size, cluster):
            return None
        planned = build_plan(changed, plan.world_size, plan.shape.vocab_size)
    except ConfigError:
        return None
    if find_split_groups(planned, cluster.devices_per_node):
        return None
    memories = list_rank_memories(build_workload(changed, planned), cluster.device.kind == "cpu")
    return max(memory.total for memory in memories)
