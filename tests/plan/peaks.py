"""The most that tensors hold in a step of a real engine, on each rank. For tests of the plan."""

import gc
from pathlib import Path

import torch
import torch.distributed as dist

from llmtrain.parallel.engine import Engine
from llmtrain.parallel.layout import build_layout
from llmtrain.parallel.start import prepare_deepspeed
from llmtrain.plan.build import build_plan
from llmtrain.tracking.memory import HostTensors
from tests.helpers.configs import load_tiny_config
from tests.parallel.test_engine import make_batches


def measure_peaks(folder: str, cases: list[list[str]]) -> list[tuple[int, int]]:
    """Pipeline rank, and peak bytes of a step, for each configuration.

    The least of three steps: what Python's collector of cycles has not come to yet is no part of a plan.
    """
    prepare_deepspeed(torch.device("cpu"))
    found = []
    for overrides in cases:
        config = load_tiny_config(Path(folder), *overrides)
        plan = build_plan(config, dist.get_world_size(), config.model.vocab_size or 300)
        layout = build_layout(plan, dist.get_rank())
        gc.collect()
        with HostTensors() as earlier:  # DeepSpeed keeps parts of engines before this one
            pass
        engine = Engine(config, plan, layout, torch.device("cpu"), num_sources=2)
        peaks = []
        for step in range(4):
            batches = make_batches(plan, layout.data_parallel_rank, step)
            with HostTensors() as tensors:
                engine.train_step(batches, 1e-3, stop_requested=False)
            peaks.append(tensors.peak_bytes - earlier.held_bytes)
        found.append((layout.pipeline_parallel_rank, min(peaks[1:])))
    return found
