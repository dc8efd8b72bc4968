"""What memory and time of a step depend on, in one record: of a configuration, or of a row of a paper.

In: `Config` and `Plan`. Out: `Workload`, plain numbers.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from llmtrain.config.root import Config
from llmtrain.plan.build import Plan
from llmtrain.plan.flops import Recompute
from llmtrain.plan.model_shape import ModelShape

Software = Literal["llmtrain", "megatron"]
"""Whose kernels and buffers: ours, or those of the Megatron papers (attention not fused, dropout, 18 bytes of state per
parameter, `selective` repeats attention's core)."""

_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Workload:
    """One optimizer step on one layout. Sizes in sequences, tokens or ranks; bytes per element."""

    shape: ModelShape
    sequence_length: int
    micro_batch_size: int
    gradient_accumulation_steps: int
    data_parallel_size: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    stage_borders: tuple[int, ...]
    zero_stage: int = 1
    recompute: Recompute = "none"
    sequence_parallel: bool = True
    parameter_bytes: int = 2
    compute_bytes: int = 2
    reduce_bytes: int = 4
    loss_chunk_tokens: int = 1024
    overlap_communication: bool = True
    offload_optimizer: bool = False
    zero3_persistent_below: int = 100_000
    masks_documents: bool = False
    """Attention reads a mask, which no flash kernel of torch does."""
    compiled: bool = True
    """Whether element-wise operations of a block are fused (`training.compile`)."""
    virtual_stages: int = 1
    """Stages of each rank with Megatron's interleaved schedule; ours has none."""
    software: Software = "llmtrain"

    @property
    def world_size(self) -> int:
        """Ranks."""
        return self.data_parallel_size * self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def global_batch_size(self) -> int:
        """Sequences of a step."""
        return self.micro_batch_size * self.gradient_accumulation_steps * self.data_parallel_size

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a step."""
        return self.global_batch_size * self.sequence_length

    @property
    def micro_batch_tokens(self) -> int:
        """Tokens of one forward pass of one data-parallel rank."""
        return self.micro_batch_size * self.sequence_length

    @property
    def is_two_way(self) -> bool:
        """Whether each rank holds a stage of either end (DualPipeV)."""
        return len(self.stage_borders) - 1 > self.pipeline_parallel_size

    @property
    def sequence_share(self) -> int:
        """Ranks that share hidden states between layers along the sequence."""
        return self.tensor_parallel_size if self.sequence_parallel else 1

    @cached_property
    def uses_autocast(self) -> bool:
        """Whether weights are float32 and products bfloat16."""
        return self.parameter_bytes > self.compute_bytes

    @property
    def hidden_bytes(self) -> int:
        """Of one number of the hidden states between layers: the residual stream stays float32 under autocast."""
        return self.parameter_bytes if self.uses_autocast else self.compute_bytes

    @property
    def hidden_states_bytes(self) -> float:
        """Of the hidden states of a micro-batch between layers, whole sequences."""
        return float(self.hidden_bytes * self.micro_batch_tokens * self.shape.hidden_size)


def build_base_workload(
    config: Config, shape: ModelShape, data: int, tensor: int, pipeline: int, stage_borders: tuple[int, ...]
) -> Workload:
    """A configured run's workload on some layout.

    Args:
        config: everything that no layout changes.
        shape: of the model, padded for the tensor-parallel size.
        data: data-parallel size.
        tensor: tensor-parallel size.
        pipeline: pipeline-parallel size.
        stage_borders: see `Plan.stage_borders`.
    """
    precision, parallel, batch = config.precision, config.parallel, config.batch
    return Workload(
        shape=shape,
        sequence_length=batch.sequence_length,
        micro_batch_size=batch.micro_batch_size,
        gradient_accumulation_steps=batch.global_batch_size // batch.micro_batch_size // data,
        data_parallel_size=data,
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        stage_borders=stage_borders,
        zero_stage=parallel.zero_stage,
        recompute=config.training.activation_recompute,
        sequence_parallel=parallel.sequence_parallel and tensor > 1,
        parameter_bytes=_BYTES[precision.parameter_dtype],
        compute_bytes=_BYTES[precision.compute_dtype],
        reduce_bytes=_BYTES[precision.reduce_dtype],
        loss_chunk_tokens=config.training.loss_chunk_tokens,
        overlap_communication=parallel.overlap_communication and pipeline == 1,
        offload_optimizer=parallel.offload_optimizer,
        zero3_persistent_below=parallel.zero3_persistent_parameters_below,
        masks_documents=config.data.mask_across_documents,
        compiled=config.training.compile,
    )


def build_workload(config: Config, plan: Plan) -> Workload:
    """The workload of a configured run.

    Args:
        config: the resolved configuration.
        plan: its derived numbers.
    """
    return build_base_workload(
        config,
        plan.shape,
        plan.data_parallel_size,
        plan.tensor_parallel_size,
        plan.pipeline_parallel_size,
        plan.stage_borders,
    )
