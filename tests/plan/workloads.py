"""Workloads of shipped configurations, for tests of the plan."""

from pathlib import Path

from llmtrain.config.loader import load_config
from llmtrain.plan.build import build_plan
from llmtrain.plan.workload import Workload, build_workload


def load_workload(name: str, world_size: int, *overrides: str) -> Workload:
    """The workload of a file in configs/pretrain on some ranks."""
    config = load_config([Path(f"configs/pretrain/{name}.yaml")], list(overrides)).config
    return build_workload(config, build_plan(config, world_size, config.model.vocab_size or 50_257))
