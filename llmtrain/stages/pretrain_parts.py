"""Parts of stage `pretrain` that need more than one line to assemble."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist

from llmtrain.config.compare import flatten
from llmtrain.config.root import Config
from llmtrain.data.baselines import MAX_TRAIN_TOKENS, Baselines, compute_baselines
from llmtrain.data.loader import Batch, TrainingLoader
from llmtrain.data.rows import Rows
from llmtrain.data.validation import read_validation_rows, share_validation
from llmtrain.errors import MemoryExhaustedError, ParallelError
from llmtrain.plan.build import Plan
from llmtrain.shards.packing import build_pack_indexes
from llmtrain.stages.training_data import TrainingData
from llmtrain.tracking.run_folder import RunWriter, explain_refusal
from llmtrain.tracking.summary import build_summary, plot_run
from llmtrain.tracking.throughput import ThroughputMeter, measure_matmul_peak

logger = logging.getLogger(__name__)

_SHOWN_DIFFERENCES = 20


def check_ranks_agree(config: Config, data: TrainingData) -> None:
    """Compare what every rank was started with: torchrun is given its command line on each node anew.

    Raises:
        ParallelError: on every rank, when configurations or data differ from those of rank 0; each key is named.
    """
    own = {key: str(value) for key, value in flatten(config).items()}
    own |= {f"sha256 of {name}": digest for name, digest in data.identity.items()}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    digests: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(digests, digest)
    if len(set(digests)) == 1:
        return
    everywhere: list[dict[str, str]] = [{} for _ in digests]
    dist.all_gather_object(everywhere, own)
    first = everywhere[0]
    rows = [
        f"  rank {rank}: {key} is {other.get(key)}, on rank 0 {first.get(key)}"
        for rank, other in enumerate(everywhere)
        for key in sorted(first.keys() | other.keys())
        if other.get(key) != first.get(key)
    ]
    raise ParallelError(
        "ranks were started with different configurations or data:\n" + "\n".join(rows[:_SHOWN_DIFFERENCES]) + "\n"
        "Give every node the same command, configuration and data folder."
    )


@contextmanager
def explain_memory(config: Config) -> Iterator[None]:
    """Say what to change when a device or the host runs out of memory.

    Raises:
        MemoryExhaustedError: in place of torch's error.
    """
    try:
        yield
    except (
        RuntimeError,
        MemoryError,
    ) as error:  # torch's errors are RuntimeErrors, on the host without a class of its own
        is_exhausted = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
        if not is_exhausted:
            raise
        raise MemoryExhaustedError(
            f"out of memory with batch.micro_batch_size = {config.batch.micro_batch_size}, batch.sequence_length = "
            f"{config.batch.sequence_length}, parallel.zero_stage = {config.parallel.zero_stage}: {error}. Lower "
            "batch.micro_batch_size, set training.activation_recompute to 'full', or raise parallel.zero_stage."
        ) from error


def prepare_packing(config: Config, plan: Plan, data: TrainingData) -> None:
    """Write the pack indexes that `data.packing: best_fit` needs and that are not there yet; ranks share the work."""
    if config.data.packing == "best_fit":
        for name, opened in data.train.items():
            written = build_pack_indexes(opened, plan.sequence_length, dist.get_rank(), dist.get_world_size())
            if written:
                logger.info("%s: packed %d shards into rows of %d tokens", name, written, plan.sequence_length)
    dist.barrier()


def build_evaluation(
    config: Config, plan: Plan, data: TrainingData, sources: Sequence[str], data_parallel_rank: int
) -> tuple[dict[str, Rows], list[Batch]]:
    """Validation windows of each source of the mixture, and this rank's share of them as batches."""
    shards = {name: data.validation[name] for name in sources}
    rows = read_validation_rows(shards, config.data, plan.sequence_length, config.evaluation.sequences_per_source)
    batches = share_validation(rows, config.data, plan.micro_batch_size, plan.data_parallel_size, data_parallel_rank)
    return rows, batches


def build_meter(config: Config, plan: Plan, device: torch.device, loader: TrainingLoader) -> ThroughputMeter:
    """The throughput meter; measures the matmul peak of all ranks at once unless `tracking.peak_flops` is given."""
    peak = config.tracking.peak_flops
    if peak is None:
        dist.barrier()
        peak = measure_matmul_peak(device, getattr(torch, config.precision.compute_dtype))
    peaks = torch.tensor(peak, dtype=torch.float64, device=device)
    dist.all_reduce(peaks)
    return ThroughputMeter(
        tokens_per_step=plan.tokens_per_step,
        flops_per_token=plan.flops_per_token,
        peak_flops=float(peaks),
        device=device,
        read_wait_seconds=lambda: loader.wait_seconds,
    )


def compute_baselines_by_source(plan: Plan, data: TrainingData, validation: Mapping[str, Rows]) -> dict[str, Baselines]:
    """Unigram and bigram of each source on its validation windows."""
    return {
        name: compute_baselines(data.train[name].read(0, MAX_TRAIN_TOKENS), rows, plan.shape.vocab_size)
        for name, rows in validation.items()
    }


def finish_run(
    config: Config,
    plan: Plan,
    data: TrainingData,
    validation: Mapping[str, Rows],
    meter: ThroughputMeter,
    writer: RunWriter,
    seconds: float,
) -> None:
    """Write summary.json and the picture of the run; rank 0 calls it at the end."""
    summary = build_summary(config, plan, compute_baselines_by_source(plan, data, validation), meter, seconds)
    writer.write_summary(summary)
    picture = config.run.folder / "curves.png"
    with explain_refusal(picture):
        plot_run(summary, config.run.folder, picture)
