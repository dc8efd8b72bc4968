"""What every post-training stage is given: its section, its folder, this process, and where to write."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from llmtrain.config.root import PosttrainingConfig
from llmtrain.posttraining.model_digest import digest_model
from llmtrain.process.signals import StopRequest
from llmtrain.process.world import World
from llmtrain.tracking.run_folder import RunWriter, read_metrics

CHECKPOINTS, MODEL, VALUE_MODEL, BEST = "checkpoints", "model", "value_model", "best"


@dataclass
class StageContext:
    """One stage on one rank."""

    name: str
    """`sft`, `reward` or `ppo`."""
    config: PosttrainingConfig
    """The whole configuration; `getattr(config, name)` is the stage's section."""
    folder: Path
    """Of the stage: RUN/NAME."""
    parents: dict[str, Path]
    """Models it starts from, by role."""
    world: World
    """This process."""
    device: torch.device
    """Of this rank."""
    stop: StopRequest
    """Set by a signal."""
    writer: RunWriter | None = None
    """Rank 0's; the others write nothing."""

    @functools.cached_property
    def parent_digests(self) -> dict[str, str]:
        """Digest of each parent; weights are read once, however often a model is saved."""
        return {role: digest_model(path) for role, path in self.parents.items()}

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.folder / CHECKPOINTS

    @property
    def model_folder(self) -> Path:
        """Folder of the model that the stage makes."""
        return self.folder / MODEL

    def wait_for_all(self) -> None:
        """Until every rank is here."""
        if dist.is_initialized():
            dist.barrier()

    def log_event(self, event: str, **fields: Any) -> None:
        """Append to the stage's events, on rank 0."""
        if self.writer is not None:
            self.writer.log_event(event, **fields)

    def read_first(self, metric: str) -> float | None:
        """The first value written of a metric, before this process or by it; rank 0 knows it."""
        points = read_metrics(self.folder).get(metric) if self.writer is not None else None
        return points[0][1] if points else None

    def agree(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; all ranks call it."""
        if not dist.is_initialized():
            return flag
        value = torch.tensor(int(flag))
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value)


def gather_all(rows: list[Any]) -> list[Any]:
    """Rows of every rank, in the order of ranks; all ranks call it and get them."""
    if not dist.is_initialized():
        return rows
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Elementwise sum over all ranks; float64 on the host."""
    total = values.detach().double().cpu()
    if dist.is_initialized():
        dist.all_reduce(total)
    return total
