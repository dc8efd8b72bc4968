"""One optimizer step on all ranks, around DeepSpeed.

micro-batches of this rank -> forward, backward (DeepSpeed reduces gradients) -> one all-reduce of the step's numbers
-> refuse a loss that is not finite -> update.

The loss of a step is the mean over all target tokens of the global batch, wherever they are: sums are divided by the
token count of all ranks, so that layout, accumulation and padding do not change it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.nn.utils import clip_grad_norm_

from llmtrain.config.root import Config
from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.data.loader import Batch
from llmtrain.errors import DivergenceError
from llmtrain.model.gpt import GPT, LossOutput
from llmtrain.model.initialize import initialize_weights
from llmtrain.optim.adamw import build_adamw
from llmtrain.parallel.deepspeed_config import build_deepspeed_config
from llmtrain.parallel.layout import Layout
from llmtrain.plan.build import Plan


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


class Engine:
    """The model on this rank, its optimizer, and DeepSpeed around both."""

    def __init__(self, config: Config, plan: Plan, layout: Layout, device: torch.device, num_sources: int) -> None:
        import deepspeed  # its import reads DS_ACCELERATOR, which start_distributed sets

        self.layout, self.device = layout, device
        self._plan, self._num_sources = plan, num_sources
        self._max_grad_norm = config.optimizer.max_grad_norm
        model = GPT(
            plan.shape,
            activation_recompute=config.training.activation_recompute,
            loss_chunk_tokens=config.training.loss_chunk_tokens,
            z_loss_coefficient=config.training.z_loss_coefficient,
        ).to(device)
        initialize_weights(model, config.run.seed)
        if config.training.compile:
            for block in model.blocks:
                block.compile()
        if config.precision.parameter_dtype == "bfloat16":
            model.to(torch.bfloat16)
        self.deepspeed, *_ = deepspeed.initialize(
            model=model,
            optimizer=build_adamw(config.optimizer, model),
            config=build_deepspeed_config(config, plan),
            dist_init_required=False,
        )

    @property
    def module(self) -> GPT:
        """The model; under ZeRO-3 its weights are whole only inside forward and backward."""
        module: GPT = self.deepspeed.module
        return module

    def train_step(self, batches: Sequence[Batch], learning_rate: float, stop_requested: bool) -> StepResult:
        """Forward, backward and update for one global batch.

        Args:
            batches: this rank's micro-batches.
            learning_rate: of this update.
            stop_requested: whether this rank was asked to stop; the result tells whether any rank was.

        Raises:
            DivergenceError: the loss or the gradient norm is not finite. With such a loss the weights are untouched.
        """
        self.deepspeed.train()
        scale = self._compute_loss_scale(batches)
        numbers = torch.zeros(2, self._num_sources, dtype=torch.float64, device=self.device)
        for i, batch in enumerate(batches):
            batch = batch.to(self.device)
            output = self._forward(batch)
            self.deepspeed.backward(output.loss_sum * scale)
            self._add_by_source(numbers, batch, output.loss_per_sequence_B, output.token_count_per_sequence_B)
            if i < len(batches) - 1:
                self.deepspeed.step()  # counts the micro-batch; updates only at the last one
        losses, stop = self._reduce(numbers, stop_requested)
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
        return StepResult(losses, grad_norm, stop)

    @torch.no_grad()
    def evaluate(self, batches: Sequence[Batch]) -> SourceLosses:
        """Losses without an update. All ranks pass equally many batches (a batch may hold no target at all)."""
        self.deepspeed.eval()
        numbers = torch.zeros(2, self._num_sources, dtype=torch.float64, device=self.device)
        for batch in batches:
            batch = batch.to(self.device)
            output = self._forward(batch)
            self._add_by_source(numbers, batch, output.loss_per_sequence_B, output.token_count_per_sequence_B)
        losses, _ = self._reduce(numbers, stop_requested=False)
        return losses

    def set_steps_taken(self, steps: int) -> None:
        """After loading a checkpoint: continue DeepSpeed's own counters where the saved run stood."""
        self.deepspeed.global_steps = steps
        self.deepspeed.global_samples = steps * self._plan.global_batch_size
        self.deepspeed.micro_steps = steps * self._plan.gradient_accumulation_steps

    def _forward(self, batch: Batch) -> LossOutput:
        output: LossOutput = self.deepspeed(
            batch.input_ids_BT,
            labels_BT=batch.labels_BT,
            position_ids_BT=batch.position_ids_BT,
            document_ids_BT=batch.document_ids_BT,
        )
        return output

    def _compute_loss_scale(self, batches: Sequence[Batch]) -> torch.Tensor:
        # DeepSpeed divides by the accumulation steps and averages over data-parallel ranks; both are undone here,
        # which leaves the sum over all tokens divided by their number.
        tokens = sum(int((batch.labels_BT != IGNORE_INDEX).sum()) for batch in batches)
        total = torch.tensor(float(tokens), device=self.device)
        dist.all_reduce(total, group=self.layout.data_parallel_group)
        return self._plan.data_parallel_size * self._plan.gradient_accumulation_steps / total.clamp(min=1.0)

    def _add_by_source(
        self, numbers: torch.Tensor, batch: Batch, loss_per_sequence_B: torch.Tensor, token_count_B: torch.Tensor
    ) -> None:
        numbers[0].index_add_(0, batch.source_ids_B, loss_per_sequence_B.double())
        numbers[1].index_add_(0, batch.source_ids_B, token_count_B.double())

    def _reduce(self, numbers: torch.Tensor, stop_requested: bool) -> tuple[SourceLosses, bool]:
        flat = torch.cat([numbers.flatten(), numbers.new_tensor([float(stop_requested)])])
        dist.all_reduce(flat, group=self.layout.data_parallel_group)
        values = flat.tolist()
        sources = self._num_sources
        return SourceLosses(values[:sources], values[sources : 2 * sources]), values[-1] > 0

    def _update(self) -> float:
        if self._plan.zero_stage == 0:
            norm = clip_grad_norm_(self.module.parameters(), self._max_grad_norm)
            self.deepspeed.step()
            return float(norm)
        self.deepspeed.step()
        return float(self.deepspeed.get_global_grad_norm())
