"""The layers of one pipeline stage as DeepSpeed's PipelineModule.

Only hidden states travel between stages. Everything else a micro-batch needs (labels, positions, document borders) each
stage reads itself: the sample order is a pure function, so all stages of a pipeline know the same batches.

Units, in the order in which the network runs: embedding, blocks, output (final norm, head and loss).
"""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.pipe import LayerSpec, PipelineModule
from deepspeed.runtime.pipe.dualpipev import DualPipeVModule
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
from torch import nn

from llmtrain.config.root import Config
from llmtrain.data.loader import Batch
from llmtrain.model.attention import KeyValueCache
from llmtrain.model.gpt import Embedding, Head, LossOutput, build_context
from llmtrain.model.recompute import run_with_recompute
from llmtrain.parallel.layout import Layout
from llmtrain.parallel.local_model import LocalModelBuilder
from llmtrain.parallel.placement import get_placement, set_placement
from llmtrain.plan.build import Plan

TIED_COPY = "embedding.token.weight"


class Output(nn.Module):
    """The last unit: final norm, output projection, loss."""

    def __init__(self, final_norm: nn.Module, head: Head) -> None:
        super().__init__()
        self.final_norm, self.head = final_norm, head

    def forward(
        self, hidden_BTD: torch.Tensor, tied_weight_VD: torch.Tensor | None, labels_BT: torch.Tensor | None
    ) -> torch.Tensor | LossOutput:
        """Logits, or losses."""
        output: torch.Tensor | LossOutput = self.head(self.final_norm(hidden_BTD), tied_weight_VD, labels_BT)
        return output


class UnitSpec(LayerSpec):  # type: ignore[misc]
    """A unit that is built only on the stage that holds it."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        super().__init__(nn.Module)
        self._build_unit = build

    def build(self, log: bool = False) -> nn.Module:
        """Build the unit."""
        return self._build_unit()


class StageModule(PipelineModule):  # type: ignore[misc]
    """The units of this rank, between the borders that the plan drew."""

    def __init__(self, config: Config, plan: Plan, layout: Layout) -> None:
        self.shape = plan.shape
        self._borders = list(plan.stage_borders)
        self._recompute = config.training.activation_recompute
        self._micro_batches: dict[int, Iterator[Batch]] = {}
        self._observe: Callable[[Batch, LossOutput], None] | None = None
        self._loss_scale: torch.Tensor | float = 1.0
        self._ends_group = layout.ends_group
        self._builder = LocalModelBuilder(config, plan.shape, layout)
        self.tensor = self._builder.tensor
        topology = PipeModelDataParallelTopology(
            num_pp=layout.pipeline_parallel_size,
            num_mp=layout.tensor_parallel_size,
            num_dp=layout.data_parallel_size,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the partition, and so does the plan
            super().__init__(self._list_units(), topology=topology, loss_fn=None)
        self._builder.set_first_weights(self.canonical_parameters())
        self._mark_tied_copy()

    def canonical_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters of this stage by their names in the whole model."""
        for name, parameter in self.named_parameters():
            unit, _, rest = name.partition(".")
            yield self._canonical(int(unit), rest), parameter

    def feed(
        self, batches: Sequence[Batch], scale: torch.Tensor | float, observe: Callable[[Batch, LossOutput], None]
    ) -> None:
        """Give the micro-batches that the next forward passes are about.

        Args:
            batches: on the device.
            scale: factor of the loss.
            observe: told of each micro-batch, on the stage that computes the loss.
        """
        self._micro_batches = {phase: iter(batches) for phase in (0, 1)}
        self._loss_scale, self._observe = scale, observe

    def forward(self, received: torch.Tensor) -> torch.Tensor:
        """Hidden states of the stage before (the first stage ignores them) -> hidden states, or the scaled loss."""
        batch = next(self._micro_batches[getattr(self, "active_phase", 0)])
        start, stop = self._local_start, self._local_stop
        result = self.run_units(
            start, stop, received, batch.input_ids_BT, batch.position_ids_BT, batch.document_ids_BT, batch.labels_BT
        )
        if isinstance(result, torch.Tensor):
            return result
        assert self._observe is not None
        self._observe(batch, result)
        return result.loss_sum * self._loss_scale

    def run_units(
        self,
        start: int,
        stop: int,
        hidden_BTD: torch.Tensor,
        input_ids_BT: torch.Tensor,
        position_ids_BT: torch.Tensor | None = None,
        document_ids_BT: torch.Tensor | None = None,
        labels_BT: torch.Tensor | None = None,
        first_position: int = 0,
        caches: Sequence[KeyValueCache] | None = None,
    ) -> torch.Tensor | LossOutput:
        """Run some of this rank's units.

        Args:
            start: the first unit.
            stop: one past the last unit.
            hidden_BTD: what the unit before gave; ignored by the embedding.
            input_ids_BT: token ids.
            position_ids_BT: positions; by default those of one text from `first_position` on.
            document_ids_BT: as in `GPT.forward`.
            labels_BT: targets; without them the output unit gives logits of the last position.
            first_position: position of the first token.
            caches: one for each block of the network, for generation.
        """
        positions = position_ids_BT
        if positions is None:
            positions = torch.arange(first_position, first_position + input_ids_BT.shape[1], device=input_ids_BT.device)
        context = None
        for unit in range(start, stop):
            module = self.get_submodule(str(unit))
            if unit == 0:
                hidden_BTD = module(input_ids_BT, positions)
            elif unit == self._num_layers - 1:
                hidden_BTD = hidden_BTD if labels_BT is not None else hidden_BTD[:, -1:]
                return module(hidden_BTD, self._tied_weight(), labels_BT)  # type: ignore[no-any-return]
            else:
                if context is None:
                    context = build_context(self.shape, positions, document_ids_BT, hidden_BTD)
                cache = None if caches is None else caches[unit - 1]
                hidden_BTD = run_with_recompute(self._recompute, module, hidden_BTD, context, cache)
        return hidden_BTD

    def list_blocks(self) -> list[nn.Module]:
        """The blocks on this rank."""
        numbered = ((name, module) for name, module in self.named_children() if name.isdecimal())
        return [module for name, module in numbered if 0 < int(name) < self._num_layers - 1]

    def get_tied_weights_and_groups(self) -> list[tuple[nn.Parameter, dist.ProcessGroup]]:
        """Weights whose gradients DeepSpeed sums over stages: the tied embedding and its copy in the output unit."""
        if not self.shape.tie_word_embeddings or self._holds_both_ends():
            return []
        named = dict(self.canonical_parameters())
        return [(named[TIED_COPY], self._ends_group)] if TIED_COPY in named else []

    def _list_units(self) -> list[UnitSpec]:
        builder, layers = self._builder, self.shape.num_layers
        return [
            UnitSpec(builder.build_embedding),
            *[UnitSpec(builder.build_block) for _ in range(layers)],
            UnitSpec(
                lambda: Output(builder.build_final_norm(), builder.build_head(has_weight=not self._is_tied_here()))
            ),
        ]

    def _partition_layers(self, method: str = "") -> None:
        self.parts = self._borders
        stage = self._topo.get_coord(self.global_rank).pipe
        self._set_bounds(start=self.parts[stage], stop=self.parts[stage + 1])

    def _index_tied_modules(self) -> dict[str, Any]:
        return {}  # a tied weight is a parameter here, not a module: get_tied_weights_and_groups

    def _holds_both_ends(self) -> bool:
        return self.num_stages == 1 or isinstance(self, DualPipeVModule)

    def _is_tied_here(self) -> bool:
        return self.shape.tie_word_embeddings and self._holds_both_ends()

    def _tied_weight(self) -> torch.Tensor | None:
        if not self._is_tied_here():
            return None
        embedding = self.get_submodule("0")
        assert isinstance(embedding, Embedding)
        return embedding.token.weight

    def _canonical(self, unit: int, rest: str) -> str:
        if unit == 0:
            return f"embedding.{rest}"
        if unit < self._num_layers - 1:
            return f"blocks.{unit - 1}.{rest}"
        return TIED_COPY if rest == "head.weight" and self.shape.tie_word_embeddings else rest

    def _mark_tied_copy(self) -> None:
        """The copy of the tied embedding in the output unit counts in no norm and is not saved."""
        for name, parameter in self.named_parameters():
            if self.shape.tie_word_embeddings and name.endswith("head.weight"):
                parameter.ds_pipe_replicated = True
                set_placement(parameter, dataclasses.replace(get_placement(parameter), is_writer=False))


class TwoWayStageModule(DualPipeVModule, StageModule):  # type: ignore[misc]
    """Two stages on each rank, one from either end of the network, for the DualPipeV schedule."""
