"""What is suggested where a run does not fit can be run by the same ranks, and needs less memory."""

from pathlib import Path

import pytest

from llmtrain.config.cluster import load_cluster
from llmtrain.config.loader import load_config
from llmtrain.plan.build import build_plan
from llmtrain.plan.estimate import Estimate, build_estimate
from llmtrain.plan.feasible import find_obstacles
from llmtrain.plan.rank_map import find_split_groups
from llmtrain.plan.suggest import suggest_changes

CLUSTERS = {name: load_cluster(name) for name in ("dgx_a100_80gb", "dgx_h100", "two_core_cpu")}
RUNS = [
    ("llama_70b", 8, "dgx_h100", ["parallel.tensor_parallel_size=8", "parallel.pipeline_parallel_size=1"]),
    ("llama_70b", 8, "dgx_h100", ["parallel.tensor_parallel_size=4", "parallel.pipeline_parallel_size=1"]),
    ("llama_70b", 2048, "dgx_h100", ["parallel.tensor_parallel_size=1", "parallel.zero_stage=3",
                                     "parallel.pipeline_parallel_size=1"]),
    ("gpt3_175b", 48, "dgx_a100_80gb", ["parallel.pipeline_parallel_size=3", "parallel.tensor_parallel_size=8"]),
    ("gpt3_175b", 24, "dgx_h100", ["parallel.pipeline_parallel_size=3", "parallel.tensor_parallel_size=8"]),
    ("gpt3_175b", 64, "dgx_h100", ["parallel.pipeline_parallel_size=8", "parallel.tensor_parallel_size=8",
                                   "parallel.pipeline_schedule=dualpipev", "batch.micro_batch_size=8"]),
    ("gpt3_13b", 8, "dgx_a100_80gb", ["batch.micro_batch_size=32"]),
    ("gpt3_13b", 24, "dgx_h100", ["batch.micro_batch_size=96", "batch.global_batch_size=2304"]),
    ("gpt3_6.7b", 8, "dgx_h100", ["parallel.zero_stage=0", "precision.parameter_dtype=float32"]),
    ("gpt3_6.7b", 2, "two_core_cpu", []),
]  # fmt: skip
STUCK = [RUNS[0], RUNS[4]]
"""No single key helps: ranks, heads, machines and blocks allow no more sharing, and all is recomputed."""


def estimate(name: str, world_size: int, cluster: str, overrides: list[str]) -> Estimate:
    """Through every check of a run."""
    config = load_config([Path(f"configs/pretrain/{name}.yaml")], overrides).config
    assert find_obstacles(config, world_size, CLUSTERS[cluster]) == []
    plan = build_plan(config, world_size, config.model.vocab_size or 0)
    assert find_split_groups(plan, CLUSTERS[cluster].devices_per_node) is None
    return build_estimate(config, plan, CLUSTERS[cluster])


@pytest.mark.parametrize(("name", "world_size", "cluster", "overrides"), RUNS)
def test_every_suggestion_can_be_run_and_saves(name: str, world_size: int, cluster: str, overrides: list[str]) -> None:
    config = load_config([Path(f"configs/pretrain/{name}.yaml")], overrides).config
    before = estimate(name, world_size, cluster, overrides)
    assert before.verdict != "fits"
    after = [
        estimate(name, world_size, cluster, [*overrides, change]).worst.total
        for change in suggest_changes(config, before)
    ]
    assert after == sorted(after)
    assert all(size < before.worst.total for size in after)
    assert bool(after) != ((name, world_size, cluster, overrides) in STUCK)


def test_the_largest_savings_are_suggested_first() -> None:
    name, world_size, cluster, overrides = RUNS[6]
    config = load_config([Path(f"configs/pretrain/{name}.yaml")], overrides).config
    assert suggest_changes(config, estimate(name, world_size, cluster, overrides)) == [
        "training.activation_recompute=full",
        "batch.micro_batch_size=16",
        "parallel.tensor_parallel_size=4",
    ]
