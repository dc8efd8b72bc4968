"""Consecutive layers on each rank: DeepSpeed's pipeline engine runs the schedule, ZeRO 0 or 1.

The schedule's last instruction, the update, is held back: the step's loss is looked at first.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.pipe.schedule import BackwardPass, ForwardPass, OptimizerStep, PipeInstruction, PipeSchedule

from llmtrain.config.root import Config
from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.data.loader import Batch
from llmtrain.model.attention import KeyValueCache
from llmtrain.model.generate import NextLogits
from llmtrain.parallel.busy_timer import BusyTimer
from llmtrain.parallel.initialize import initialize_deepspeed
from llmtrain.parallel.layout import Layout
from llmtrain.parallel.pipeline_module import StageModule, TwoWayStageModule
from llmtrain.parallel.whole_network import Observe
from llmtrain.plan.build import Plan


class PipelinedNetwork:
    """Runs micro-batches through the stages."""

    def __init__(self, config: Config, plan: Plan, layout: Layout, device: torch.device) -> None:
        self._layout, self._device = layout, device
        self.bubble_fraction = 0.0
        """Share of the last forward and backward passes in which this rank computed nothing."""
        self._num_layers = plan.shape.num_layers
        is_two_way = config.parallel.pipeline_schedule == "dualpipev"
        self._stage_owners = list(range(layout.pipeline_parallel_size))
        if is_two_way:
            self._stage_owners += self._stage_owners[::-1]
        # DeepSpeed's DualPipeV places buffers by the number of micro-batches it was built for.
        self._fixed_micro_batches = plan.gradient_accumulation_steps if is_two_way else None
        module = (TwoWayStageModule if is_two_way else StageModule)(config, plan, layout)
        self.deepspeed: Any = initialize_deepspeed(module, module.list_blocks(), config, plan, device)
        self._busy, self._whole = BusyTimer(device), BusyTimer(device)
        self.deepspeed._INSTRUCTION_MAP = {
            kind: self._timed(execute) if kind in (ForwardPass, BackwardPass) else execute
            for kind, execute in type(self.deepspeed)._INSTRUCTION_MAP.items()
        }
        # The schedule wants an iterator to load from; stages take their batches from StageModule.feed instead.
        nothing = torch.zeros(1)
        self.deepspeed.set_dataiterator(iter(lambda: (nothing, nothing), None))

    @property
    def module(self) -> StageModule:
        """The units on this rank."""
        module: StageModule = self.deepspeed.module
        return module

    def forward_backward(self, batches: Sequence[Batch], scale: torch.Tensor, observe: Observe) -> None:
        """Accumulate gradients of `scale * loss_sum` over micro-batches and reduce them."""
        self.module.train()
        self.module.feed([batch.to(self._device) for batch in batches], scale, observe)
        self.deepspeed.total_loss, self.deepspeed._compute_loss = None, True
        self._busy.take_seconds()
        with self._whole.running():
            self.deepspeed._exec_schedule(_WithoutUpdate(self.deepspeed._train_schedule()))
        self.bubble_fraction = 1.0 - self._busy.take_seconds() / self._whole.take_seconds()

    @torch.no_grad()
    def forward(self, batches: Sequence[Batch], observe: Observe) -> None:
        """Only the losses."""
        self.module.eval()
        count = self._fixed_micro_batches or len(batches)
        padded = [*batches, *[_without_targets(batches[0])] * (-len(batches) % count)]
        for first in range(0, len(padded), count):
            self.module.feed([batch.to(self._device) for batch in padded[first : first + count]], 1.0, observe)
            self.deepspeed.total_loss, self.deepspeed._compute_loss = None, True
            self.deepspeed._exec_schedule(self.deepspeed._inference_schedule(count))

    def update(self) -> None:
        """One optimizer step with the accumulated gradients."""
        self.deepspeed._exec_optimizer_step()

    @contextmanager
    def generating(self) -> Iterator[NextLogits]:
        """The model as `generate` calls it, for one text: hidden states pass from stage to stage."""
        self.module.eval()
        caches = [KeyValueCache() for _ in range(self._num_layers)]

        def next_logits(new_ids_1T: torch.Tensor, first_position: int) -> torch.Tensor:
            return self._compute_logits(new_ids_1T.to(self._device), first_position, caches)

        with ExitStack() as stack:
            if self.module.tensor is not None:
                stack.enter_context(self.module.tensor.whole_sequences())
            yield next_logits

    def _timed(self, execute: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any, **kwargs: Any) -> None:
            with self._busy.running():
                execute(*args, **kwargs)

        return run

    def _compute_logits(
        self, new_ids_1T: torch.Tensor, first_position: int, caches: Sequence[KeyValueCache]
    ) -> torch.Tensor:
        shape, parameter = self.module.shape, next(self.module.parameters())
        hidden_1TD = parameter.new_empty(1, new_ids_1T.shape[1], shape.hidden_size)
        logits_V: torch.Tensor = parameter.new_empty(shape.vocab_size)
        own, parts = self._layout.pipeline_parallel_rank, self.module.parts
        for stage, owner in enumerate(self._stage_owners):
            if owner == own:
                source = self._stage_owners[stage - 1] if stage else own
                if source != own:
                    dist.recv(hidden_1TD, self._layout.rank_of_stage(source))
                result = self.module.run_units(
                    parts[stage],
                    parts[stage + 1],
                    hidden_1TD,
                    new_ids_1T,
                    first_position=first_position,
                    caches=caches,
                )
                assert isinstance(result, torch.Tensor)
                if stage == len(self._stage_owners) - 1:
                    logits_V.copy_(result[0, -1])
                    continue
                hidden_1TD = result.contiguous()
                if self._stage_owners[stage + 1] != own:
                    dist.send(hidden_1TD, self._layout.rank_of_stage(self._stage_owners[stage + 1]))
        last = self._layout.rank_of_stage(self._stage_owners[-1])
        dist.broadcast(logits_V, src=last, group=self._layout.pipeline_parallel_group)
        return logits_V


class _WithoutUpdate:
    """A training schedule that ends after the reduction of gradients."""

    def __init__(self, schedule: PipeSchedule) -> None:
        self._schedule = schedule

    def num_pipe_buffers(self) -> int:
        return int(self._schedule.num_pipe_buffers())

    def __iter__(self) -> Iterator[list[PipeInstruction]]:
        for instructions in self._schedule:
            yield [instruction for instruction in instructions if not isinstance(instruction, OptimizerStep)]


def _without_targets(batch: Batch) -> Batch:
    """A batch that adds nothing to any loss."""
    return Batch(
        batch.input_ids_BT,
        torch.full_like(batch.labels_BT, IGNORE_INDEX),
        batch.source_ids_B,
        batch.position_ids_BT,
        batch.document_ids_BT,
    )
