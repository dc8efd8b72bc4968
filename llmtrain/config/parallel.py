"""Section `parallel`: how a model is spread over ranks."""

from typing import Annotated, Literal

from pydantic import Field

from llmtrain.config.section import NonNegativeInt, PositiveInt, Section


class ParallelConfig(Section):
    """world_size = data_parallel_size (derived) x tensor_parallel_size x pipeline_parallel_size."""

    tensor_parallel_size: PositiveInt = 1
    """Ranks that share each weight matrix; they should share a machine, too."""
    sequence_parallel: bool = True
    """With tensor parallelism, also share norms and residual additions, along the sequence
    (Korthikanti et al. 2022)."""
    pipeline_parallel_size: PositiveInt = 1
    """Ranks that hold consecutive layers."""
    pipeline_schedule: Literal["1f1b", "dualpipev"] = "1f1b"
    """`1f1b` alternates forward and backward passes (Narayanan et al. 2019); `dualpipev` puts a stage of either end of
    the network on each rank, for a smaller bubble, and needs at least twice as many accumulation steps as ranks
    (DeepSeek-AI 2024)."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    """What data-parallel ranks share: 0 nothing, 1 optimizer states, 2 also gradients, 3 also weights
    (Rajbhandari et al. 2020)."""
    overlap_communication: bool = True
    """Reduce gradients, and under ZeRO-3 gather weights, while the backward and forward passes go on; a pipeline
    does not."""
    offload_optimizer: bool = False
    """Keep master weights and optimizer states of ZeRO 1, 2 and 3 in the host's memory, and update them there
    (ZeRO-Offload, Ren et al. 2021)."""
    hierarchical_partition_size: PositiveInt | None = None
    """With ZeRO-3: also keep whole weights within groups of so many data-parallel ranks, those of a machine, so that
    backward passes gather no weights between machines (ZeRO++, Wang et al. 2023, section 3.2)."""
    check_replicas_every_steps: PositiveInt | None = 500
    """Optimizer steps between comparisons of weights that ranks share, which also come before each save; null =
    never."""
    zero3_persistent_parameters_below: NonNegativeInt = 100_000
    """ZeRO-3 keeps weights with fewer elements whole on every rank, as gathering them costs more than their memory."""
    communication_timeout_seconds: PositiveInt = 600
    """A collective that takes longer ends the run instead of hanging it."""
