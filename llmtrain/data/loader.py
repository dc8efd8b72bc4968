"""Batches of one data-parallel rank, prefetched by one thread; the state is the number of the step.

    step s -> samples [s*G, s*G + G) of the sample order          G = global batch size
    rank r, micro-batch m -> samples s*G + (m*D + r)*B + [0, B)   D data-parallel ranks, B micro-batch size
    samples -> rows of their sources -> tensors

Shapes: B sequences, T tokens.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch

from llmtrain.config.data import DataConfig
from llmtrain.config.root import Config
from llmtrain.data.mixture import resolve_mixture
from llmtrain.data.order import SampleOrder
from llmtrain.data.rows import Ids, PackedRows, Rows, StreamRows, open_rows
from llmtrain.plan.build import Plan
from llmtrain.shards.reader import ShardedTokens

_PREFETCHED_STEPS = 2


@dataclass(frozen=True)
class Batch:
    """What one forward pass reads."""

    input_ids_BT: torch.Tensor
    labels_BT: torch.Tensor
    """Target of each input position; IGNORE_INDEX where there is none."""
    source_ids_B: torch.Tensor
    """Index of the source of each sequence."""
    position_ids_BT: torch.Tensor | None = None
    document_ids_BT: torch.Tensor | None = None

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """The batch with a function applied to each of its tensors."""
        mapped: dict[str, Any] = {
            field.name: None if (tensor := getattr(self, field.name)) is None else function(tensor)
            for field in fields(self)
        }
        return type(self)(**mapped)


class TrainingLoader:
    """Gives the micro-batches of any step; consecutive steps are read ahead."""

    def __init__(
        self,
        order: SampleOrder,
        readers: Mapping[str, StreamRows | PackedRows],
        config: Config,
        plan: Plan,
        data_parallel_rank: int,
        pin_memory: bool = False,
    ) -> None:
        self.order, self._pin_memory = order, pin_memory
        self._readers = [readers[name] for name in order.mixture.names]
        self._data, self._plan, self._rank = config.data, plan, data_parallel_rank
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._pending: dict[int, Future[list[Batch]]] = {}
        self.wait_seconds = 0.0
        """Time that `load_step` has waited so far."""

    def load_step(self, step: int) -> list[Batch]:
        """The micro-batches of this rank for one optimizer step.

        Raises:
            DataError: a shard is damaged.
        """
        started = time.perf_counter()
        for ahead in range(step, min(step + 1 + _PREFETCHED_STEPS, max(self._plan.train_steps, step + 1))):
            if ahead not in self._pending:
                self._pending[ahead] = self._thread.submit(self._read_step, ahead)
        for stale in [other for other in self._pending if not step <= other <= step + _PREFETCHED_STEPS]:
            self._pending.pop(stale).cancel()
        batches = self._pending.pop(step).result()
        self.wait_seconds += time.perf_counter() - started
        return batches

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _read_step(self, step: int) -> list[Batch]:
        plan = self._plan
        samples = self.order.locate(step * plan.global_batch_size, plan.global_batch_size)
        shape = (plan.gradient_accumulation_steps, plan.data_parallel_size, plan.micro_batch_size)
        mine = np.arange(plan.global_batch_size).reshape(shape)[:, self._rank].reshape(-1)
        sources, windows = samples.sources[mine], samples.windows[mine]
        rows = Rows.empty(len(mine), plan.sequence_length)
        for source in np.unique(sources).tolist():
            here = np.flatnonzero(sources == source)
            rows.put(here, self._readers[source].read(windows[here]))
        batch = make_batch(rows, sources, self._data)
        if self._pin_memory:
            batch = batch.map(torch.Tensor.pin_memory)
        return split_batch(batch, plan.micro_batch_size)


def make_batch(rows: Rows, sources: Ids, config: DataConfig) -> Batch:
    """Rows as tensors, with what masking and position reset need."""
    return Batch(
        input_ids_BT=torch.from_numpy(rows.input_ids_NT),
        labels_BT=torch.from_numpy(rows.labels_NT),
        source_ids_B=torch.from_numpy(sources),
        position_ids_BT=torch.from_numpy(rows.compute_position_ids()) if config.reset_position_ids else None,
        document_ids_BT=torch.from_numpy(rows.document_ids_NT) if config.mask_across_documents else None,
    )


def split_batch(batch: Batch, micro_batch_size: int) -> list[Batch]:
    """Consecutive micro-batches of a larger batch, as views."""
    starts = range(0, len(batch.source_ids_B), micro_batch_size)
    return [batch.map(lambda tensor, i=start: tensor[i : i + micro_batch_size]) for start in starts]  # type: ignore[misc]


def build_loader(
    config: Config,
    plan: Plan,
    shards: Mapping[str, ShardedTokens],
    data_parallel_rank: int,
    pin_memory: bool = False,
) -> TrainingLoader:
    """The loader of one data-parallel rank.

    Args:
        config: the resolved configuration.
        plan: batch arithmetic and horizon.
        shards: training shards by source, in the order of the mixture.
        data_parallel_rank: which samples of each step.
        pin_memory: page-lock batches in the thread, so that copies to a GPU run beside its work.

    Raises:
        DataError: the mixture cannot be made from these shards.
    """
    readers = {name: open_rows(opened, config.data, plan.sequence_length) for name, opened in shards.items()}
    order = build_order(config, plan, shards, readers)
    return TrainingLoader(order, readers, config, plan, data_parallel_rank, pin_memory)


def build_order(
    config: Config,
    plan: Plan,
    shards: Mapping[str, ShardedTokens],
    readers: Mapping[str, StreamRows | PackedRows],
) -> SampleOrder:
    """Which window of which source each sample is.

    Raises:
        DataError: the mixture cannot be made from these shards.
    """
    mixture = resolve_mixture(
        config.data,
        {name: opened.token_count for name, opened in shards.items()},
        {name: reader.num_windows for name, reader in readers.items()},
        plan.train_steps,
        plan.global_batch_size,
    )
    return SampleOrder(mixture, config.run.seed)
