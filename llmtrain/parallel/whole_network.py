"""All layers on each rank (possibly a part of each weight): DeepSpeed's plain engine, ZeRO 0 to 3."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from llmtrain.config.root import Config
from llmtrain.data.loader import Batch
from llmtrain.model.generate import NextLogits, cached_logits
from llmtrain.model.gpt import GPT, LossOutput
from llmtrain.parallel.deepspeed_groups import DeepSpeedGroups
from llmtrain.parallel.initialize import initialize_deepspeed
from llmtrain.parallel.layout import Layout
from llmtrain.parallel.local_model import LocalModelBuilder
from llmtrain.plan.build import Plan

Observe = Callable[[Batch, LossOutput], None]
"""Told of each micro-batch whose losses were computed on this rank."""


class WholeNetwork:
    """Runs micro-batches one after the other."""

    bubble_fraction = 0.0
    """A rank that holds all layers waits for no other stage."""

    def __init__(self, config: Config, plan: Plan, layout: Layout, device: torch.device) -> None:
        self._device = device
        builder = LocalModelBuilder(config, plan.shape, layout)
        self._tensor = builder.tensor
        model = builder.build_gpt()
        self.deepspeed: Any = initialize_deepspeed(
            model, model.blocks, config, plan, device, mpu=DeepSpeedGroups(layout)
        )

    @property
    def module(self) -> GPT:
        """The model; under ZeRO-3 its weights are whole only inside forward and backward."""
        module: GPT = self.deepspeed.module
        return module

    def forward_backward(self, batches: Sequence[Batch], scale: torch.Tensor, observe: Observe) -> None:
        """Accumulate gradients of `scale * loss_sum` over micro-batches; DeepSpeed reduces them at the last one."""
        self.deepspeed.train()
        for i, batch in enumerate(batches):
            batch = batch.to(self._device)
            output = self._forward(batch)
            self.deepspeed.backward(output.loss_sum * scale)
            observe(batch, output)
            if i < len(batches) - 1:
                self.deepspeed.step()  # counts the micro-batch; updates only at the last one

    @torch.no_grad()
    def forward(self, batches: Sequence[Batch], observe: Observe) -> None:
        """Only the losses."""
        self.deepspeed.eval()
        for batch in batches:
            batch = batch.to(self._device)
            observe(batch, self._forward(batch))

    def update(self) -> None:
        """One optimizer step with the accumulated gradients."""
        self.deepspeed.step()

    @contextmanager
    def generating(self) -> Iterator[NextLogits]:
        """The model as `generate` calls it, for one text."""
        self.deepspeed.eval()
        with ExitStack() as stack:
            if self._tensor is not None:
                stack.enter_context(self._tensor.whole_sequences())
            yield cached_logits(self.module)

    def _forward(self, batch: Batch) -> LossOutput:
        output: LossOutput = self.deepspeed(
            batch.input_ids_BT,
            labels_BT=batch.labels_BT,
            position_ids_BT=batch.position_ids_BT,
            document_ids_BT=batch.document_ids_BT,
        )
        return output
