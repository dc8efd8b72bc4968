"""One optimizer step on all ranks, around DeepSpeed.

micro-batches of this rank -> forward, backward (DeepSpeed reduces gradients) -> one all-reduce of the step's numbers
-> refuse a loss that is not finite -> update. How layers and weights are spread is the network's business.

The loss of a step is the mean over all target tokens of the global batch, wherever they are: sums are divided by the
token count of all ranks, so that layout, accumulation and padding do not change it.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import nn

from llmtrain.config.root import Config
from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.data.loader import Batch
from llmtrain.errors import DivergenceError
from llmtrain.model.generate import NextLogits
from llmtrain.model.gpt import LossOutput
from llmtrain.parallel.gradient_norm import clip_gradients
from llmtrain.parallel.layout import Layout
from llmtrain.parallel.whole_network import Observe, WholeNetwork
from llmtrain.plan.build import Plan

if TYPE_CHECKING:
    from llmtrain.parallel.pipelined_network import PipelinedNetwork


@dataclass(frozen=True)
class SourceLosses:
    """Sums over all ranks by source index: nats, and the target tokens they belong to."""

    loss_sums: list[float]
    token_counts: list[float]

    @property
    def mean(self) -> float:
        """Mean loss over all target tokens, nats per token."""
        return sum(self.loss_sums) / max(1.0, sum(self.token_counts))


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step tells."""

    losses: SourceLosses
    grad_norm: float
    stop_requested: bool
    pipeline_bubble_fraction: float = 0.0
    """Share of forward and backward passes in which a rank waited for other stages, mean over all ranks."""


class Engine:
    """The model on this rank, its optimizer, and DeepSpeed around both."""

    def __init__(self, config: Config, plan: Plan, layout: Layout, device: torch.device, num_sources: int) -> None:
        self.layout, self.device = layout, device
        self._plan, self._num_sources = plan, num_sources
        self._max_grad_norm = config.optimizer.max_grad_norm
        self._network = _build_network(config, plan, layout, device)
        self.deepspeed = self._network.deepspeed

    @property
    def module(self) -> nn.Module:
        """The layers on this rank; under ZeRO-3 their weights are whole only inside forward and backward."""
        return self._network.module

    @property
    def max_sequence_length(self) -> int:
        """Positions of the model."""
        return self._plan.shape.max_sequence_length

    def generating(self) -> AbstractContextManager[NextLogits]:
        """The model as `generate` calls it, for one text; all ranks take part."""
        return self._network.generating()

    def train_step(self, batches: Sequence[Batch], learning_rate: float, stop_requested: bool) -> StepResult:
        """Forward, backward and update for one global batch.

        Args:
            batches: this rank's micro-batches.
            learning_rate: of this update.
            stop_requested: whether this rank was asked to stop; the result tells whether any rank was.

        Raises:
            DivergenceError: the loss or the gradient norm is not finite. With such a loss the weights are untouched.
        """
        numbers = self._make_numbers()
        self._network.forward_backward(batches, self._compute_loss_scale(batches), self._observer(numbers))
        losses, stop, bubble = self._reduce(numbers, stop_requested)
        if not math.isfinite(losses.mean):
            raise DivergenceError(
                f"step {self.deepspeed.global_steps + 1}: the loss is {losses.mean}. The weights were not updated and "
                "the last checkpoint is whole. Lower optimizer.learning_rate or lengthen schedule.warmup_steps, then "
                "start again: the run resumes."
            )
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        grad_norm = self._update()
        if not math.isfinite(grad_norm):
            raise DivergenceError(
                f"step {self.deepspeed.global_steps}: the gradient norm is {grad_norm} at a loss of {losses.mean:.4f}. "
                "Nothing was saved after it. Lower optimizer.learning_rate, then start again: the run resumes from the "
                "last checkpoint."
            )
        return StepResult(losses, grad_norm, stop, bubble)

    @torch.no_grad()
    def evaluate(self, batches: Sequence[Batch]) -> SourceLosses:
        """Losses without an update. All ranks pass equally many batches (a batch may hold no target at all)."""
        numbers = self._make_numbers()
        self._network.forward(batches, self._observer(numbers))
        losses, _, _ = self._reduce(numbers, stop_requested=False)
        return losses

    def _compute_loss_scale(self, batches: Sequence[Batch]) -> torch.Tensor:
        # DeepSpeed divides by the accumulation steps and averages over data-parallel ranks; both are undone here,
        # which leaves the sum over all tokens divided by their number.
        tokens = sum(int((batch.labels_BT != IGNORE_INDEX).sum()) for batch in batches)
        total = torch.tensor(float(tokens), device=self.device)
        dist.all_reduce(total, group=self.layout.data_parallel_group)
        return self._plan.data_parallel_size * self._plan.gradient_accumulation_steps / total.clamp(min=1.0)

    def _make_numbers(self) -> torch.Tensor:
        """Loss sums and token counts by source."""
        return torch.zeros(2, self._num_sources, dtype=torch.float64, device=self.device)

    def _observer(self, numbers: torch.Tensor) -> Observe:
        def add(batch: Batch, output: LossOutput) -> None:
            numbers[0].index_add_(0, batch.source_ids_B, output.loss_per_sequence_B.double())
            numbers[1].index_add_(0, batch.source_ids_B, output.token_count_per_sequence_B.double())

        return add

    def _reduce(self, numbers: torch.Tensor, stop_requested: bool) -> tuple[SourceLosses, bool, float]:
        """Sums over data-parallel ranks; of a pipeline only the stage with the loss has any."""
        layout, sources = self.layout, self._num_sources
        bubble_share = self._network.bubble_fraction / (layout.data_parallel_size * layout.pipeline_parallel_size)
        flat = torch.cat([numbers.flatten(), numbers.new_tensor([bubble_share, float(stop_requested)])])
        dist.all_reduce(flat, group=layout.data_parallel_group)
        if layout.pipeline_parallel_size > 1:
            dist.all_reduce(flat, group=layout.pipeline_parallel_group)
        if layout.tensor_parallel_size > 1:
            dist.all_reduce(flat[-1:], group=layout.tensor_parallel_group)
        values = flat.tolist()
        return SourceLosses(values[:sources], values[sources : 2 * sources]), values[-1] > 0, values[-2]

    def _update(self) -> float:
        if self._plan.zero_stage == 0:
            parameters = list(self.module.parameters())
            norm = clip_gradients(parameters, self._max_grad_norm, self.layout.model_parallel_group)
            self._network.update()
            return norm
        self._network.update()
        return float(self.deepspeed.get_global_grad_norm())


def _build_network(
    config: Config, plan: Plan, layout: Layout, device: torch.device
) -> "WholeNetwork | PipelinedNetwork":
    if layout.pipeline_parallel_size == 1:
        return WholeNetwork(config, plan, layout, device)
    from llmtrain.parallel.pipelined_network import PipelinedNetwork  # subclasses what DeepSpeed's import makes

    return PipelinedNetwork(config, plan, layout, device)
