"""Workloads and layouts for tests of the plan."""

from pathlib import Path

from llmtrain.config.loader import load_config
from llmtrain.plan.build import build_plan
from llmtrain.plan.workload import Workload, build_workload


def load_workload(name: str, world_size: int, *overrides: str) -> Workload:
    """The workload of a file in configs/pretrain on some ranks."""
    config = load_config([Path(f"configs/pretrain/{name}.yaml")], list(overrides)).config
    return build_workload(config, build_plan(config, world_size, config.model.vocab_size or 50_257))


def list_layout_overrides(zero_stage: int, tensor: int, pipeline: int, dtype: str) -> list[str]:
    """A layout and its numbers, for the tiny configuration; next to no weight stays whole under ZeRO 3."""
    return [
        f"parallel.zero_stage={zero_stage}",
        f"parallel.tensor_parallel_size={tensor}",
        f"parallel.pipeline_parallel_size={pipeline}",
        f"precision.parameter_dtype={dtype}",
        f"precision.compute_dtype={dtype}",
        "parallel.zero3_persistent_parameters_below=100",
    ]
