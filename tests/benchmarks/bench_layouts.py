"""Training speed of layouts on two CPU ranks, side by side: data, tensor and pipeline parallelism, ZeRO stages.

    python -m tests.benchmarks.bench_layouts --output docs/results/layouts_cpu.json

One Llama of 8.4 M parameters, 16 x 256 tokens a step, float32, one thread a rank (`one_process` has two threads). Each
layout runs in a launch of its own, in turn, several rounds; figures are medians. Beside tokens per second: the share of
a step spent inside collectives and messages (on the host's clock, mean of the ranks; waiting for a slower rank counts),
and for pipelines the bubble, the share of passes in which a rank computed nothing. Text is made up.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from llmtrain.config.loader import validate
from llmtrain.parallel.engine import Engine
from llmtrain.parallel.layout import build_layout
from llmtrain.parallel.start import prepare_deepspeed
from llmtrain.plan.build import build_plan
from llmtrain.training.parity import VOCAB_SIZE, list_own_batches
from tests.helpers.ranks import run_ranks

WARMUP_STEPS = 3
BASE: dict[str, Any] = {
    "run": {"name": "bench", "seed": 1},
    "data": {"folder": "nowhere"},
    "batch": {"sequence_length": 256, "micro_batch_size": 4, "global_batch_size": 16},
    "model": {
        "family": "llama",
        "num_layers": 6,
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 8192,
    },
    "optimizer": {"learning_rate": 1e-3},
    "schedule": {"name": "constant", "warmup_steps": 1},
}
TENSOR, PIPELINE = {"tensor_parallel_size": 2}, {"pipeline_parallel_size": 2}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one_process": (1, {"zero_stage": 0}),
    "data_2_zero_0": (2, {"zero_stage": 0}),
    "data_2_zero_1": (2, {"zero_stage": 1}),
    "data_2_zero_2": (2, {"zero_stage": 2}),
    "data_2_zero_3": (2, {"zero_stage": 3}),
    "tensor_2": (2, TENSOR),
    "tensor_2_no_sequence_parallel": (2, {**TENSOR, "sequence_parallel": False}),
    "pipeline_2_1f1b": (2, PIPELINE),
    "pipeline_2_dualpipev": (2, {**PIPELINE, "pipeline_schedule": "dualpipev"}),
}
COLLECTIVES = ["all_reduce", "all_gather", "all_gather_into_tensor", "reduce_scatter_tensor", "broadcast", "reduce"]
COLLECTIVES += ["send", "recv", "batch_isend_irecv"]


def measure(parallel: dict[str, Any], steps: int, threads: int) -> dict[str, float]:
    """Train some steps as one of the ranks; seconds of a step and where they went."""
    torch.set_num_threads(threads)
    prepare_deepspeed(torch.device("cpu"))
    config = validate({**BASE, "training": {"train_steps": steps}, "parallel": parallel}, {(): "bench"})
    plan = build_plan(config, dist.get_world_size(), BASE["model"]["vocab_size"])
    engine = Engine(config, plan, build_layout(plan, dist.get_rank()), torch.device("cpu"), num_sources=2)
    clock = _time_collectives()
    bubbles = []
    for step in range(steps):
        if step == WARMUP_STEPS:
            started, clock["seconds"] = time.perf_counter(), 0.0
        batches = list_own_batches(step, config, plan, engine.layout.data_parallel_rank)
        bubbles.append(engine.train_step(batches, 1e-3, stop_requested=False).pipeline_bubble_fraction)
    seconds = time.perf_counter() - started
    return {
        "tokens_per_second": (steps - WARMUP_STEPS) * plan.tokens_per_step / seconds,
        "communication_fraction": clock["seconds"] / seconds,
        "bubble_fraction": statistics.fmean(bubbles[WARMUP_STEPS:]),
    }


def _time_collectives() -> dict[str, float]:
    """Wrap torch.distributed's functions so that the time inside is added up."""
    clock = {"seconds": 0.0}

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            work = function(*args, **kwargs)
            clock["seconds"] += time.perf_counter() - started
            return work

        return run

    for name in COLLECTIVES:
        setattr(dist, name, wrap(getattr(dist, name)))
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=13)
    arguments = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in LAYOUTS}
    for _ in range(arguments.rounds):
        for name, (ranks, parallel) in LAYOUTS.items():
            results = run_ranks(ranks, measure, parallel, arguments.steps, 2 // ranks, timeout=300)
            runs[name].append({key: statistics.fmean(row[key] for row in results) for key in results[0]})
    medians = {
        name: {key: statistics.median(run[key] for run in rows) for key in rows[0]} for name, rows in runs.items()
    }
    reference = medians["data_2_zero_1"]["tokens_per_second"]
    result = {
        "rounds": arguments.rounds,
        "vocab_of_text": VOCAB_SIZE,
        "layouts": {
            name: {**row, "over_data_2_zero_1": row["tokens_per_second"] / reference} for name, row in medians.items()
        },
        "runs": runs,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
