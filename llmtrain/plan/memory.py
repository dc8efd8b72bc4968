"""Memory of each pipeline rank, as DeepSpeed allocates it for our engine, and whether it fits.

In: `Workload`, `ClusterConfig`. Out: `RankMemory` for each pipeline rank, bytes; tensor- and data-parallel ranks of a
stage hold the same amount.

    weights          ZeRO 0-2 whole, 3 shared (small ones stay whole)
    master weights   float32, shared by ZeRO 1-3; none under ZeRO 0, whose weights are float32
    moments          two float32 numbers per parameter, shared by ZeRO 1-3
    gradients        in the format of the weights; ZeRO 0 and 1 collect whole ones over micro-batches, 3 a share,
                     2 (and 1 with a single micro-batch) all of each weight that a share touches
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from llmtrain.config.cluster import ClusterConfig
from llmtrain.plan.activations import FLOAT32, compute_block_bytes, compute_megatron_first_stage_bytes
from llmtrain.plan.model_shape import ModelShape
from llmtrain.plan.moments import list_moments
from llmtrain.plan.parameters import Weight, list_rank_weights
from llmtrain.plan.workload import Workload
from llmtrain.plan.zero import is_persistent, pad_groups, pad_weight

Verdict = Literal["fits", "tight", "does not fit"]

GIB = 2**30
_CONTEXT_BYTES = 1.5 * GIB
"""CUDA's context, cuBLAS and NCCL on a GPU."""
_FRAGMENTATION = 0.05
_TIGHT_ABOVE = 0.92
"""Share of the device's memory from which on a plan is called tight: what follows may be a few percent off."""
_STATE_BYTES_MEGATRON = 18


@dataclass(frozen=True)
class RankMemory:
    """Bytes on the device of one rank at its peak, by what holds them."""

    parameters: float
    master_weights: float
    moments: float
    gradients: float
    activations: float
    loss: float
    """Logits of a chunk."""
    buffers: float
    """Buckets in which gradients are reduced and weights gathered, and what a pass or the update needs meanwhile."""
    margin: float
    """Context of the device and fragmentation."""
    moment: str = ""
    """Of a step, at which most is held, see `plan.moments`."""
    start: float = 0.0
    """What is needed before the first step, not on top of the rest: the rank's weights in float32, not yet shared."""

    @property
    def states(self) -> float:
        """What lasts from step to step, and gradients."""
        return self.parameters + self.master_weights + self.moments + self.gradients

    @property
    def parts(self) -> dict[str, float]:
        """Bytes of a step by what holds them."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.type is float and field.name != "start"
        }

    @property
    def allocated(self) -> float:
        """As `total`, of what torch hands out: without the device's context and fragments."""
        return max(float(sum(self.parts.values())) - self.margin, self.start - min(self.margin, _CONTEXT_BYTES))

    @property
    def total(self) -> float:
        """All that is needed at one time, in a step or at the start."""
        return max(float(sum(self.parts.values())), self.start)


def compute_rank_memory(work: Workload, pipeline_rank: int, is_cpu: bool = False) -> RankMemory:
    """Bytes on each rank of one pipeline rank.

    Args:
        work: the workload.
        pipeline_rank: which of the pipeline's ranks.
        is_cpu: the device is a processor.
    """
    weights = list_rank_weights(
        work.shape, work.tensor_parallel_size, work.pipeline_parallel_size, work.stage_borders, pipeline_rank
    )
    parameters, masters, moments, gradients = compute_state_bytes(work, weights)
    held = sum(weight.elements for weight in weights)
    if work.offload_optimizer:
        masters = moments = 0.0
    peak = max(list_moments(work, pipeline_rank, held, gradients, is_cpu), key=lambda moment: moment.total)
    allocated = parameters + masters + moments + peak.total
    margin = 0.0 if is_cpu else _CONTEXT_BYTES + _FRAGMENTATION * allocated
    start = FLOAT32 * float(held) + (0.0 if is_cpu else _CONTEXT_BYTES)
    return RankMemory(
        parameters,
        masters,
        moments,
        peak.gradients,
        peak.activations,
        peak.loss,
        peak.buffers,
        margin,
        moment=peak.name,
        start=start,
    )


def compute_state_bytes(work: Workload, weights: Sequence[Weight]) -> tuple[float, float, float, float]:
    """Bytes of weights, float32 masters, both moments, and gradients at the most they hold during backward passes.

    Args:
        work: the workload.
        weights: what the rank holds before anything is shared.

    Source:
        Rajbhandari et al. 2020, section 5; paddings as in deepspeed 0.19's `stage_1_and_2.py` and `stage3.py`.
    """
    size, held = work.parameter_bytes, sum(weight.elements for weight in weights)
    if work.zero_stage == 0:
        return size * held, 0.0, 2 * FLOAT32 * held, size * held
    if work.zero_stage == 3:
        shared = sum(pad_weight(weight, work.data_parallel_size) for weight in weights) // work.data_parallel_size
        persistent = sum(weight.elements for weight in weights if is_persistent(work, weight))
        parameters = size * (shared + (persistent if work.data_parallel_size > 1 else 0))
        return parameters, FLOAT32 * shared, 2 * FLOAT32 * shared, size * shared
    padded = sum(pad_groups(weights, work.data_parallel_size))
    shared = padded // work.data_parallel_size
    # ZeRO 1 reduces gradients in the last micro-batch, and a pipeline after it: until then whole ones are summed up.
    collects = work.zero_stage == 1 and (work.gradient_accumulation_steps > 1 or work.pipeline_parallel_size > 1)
    gradients = size * (held if collects else _count_largest_share(work, weights))
    return size * padded, FLOAT32 * shared, 2 * FLOAT32 * shared, gradients


def _count_largest_share(work: Workload, weights: Sequence[Weight]) -> int:
    """Elements of gradients that ZeRO-2 leaves on the rank with most: whole ones of every weight its share touches."""
    most = [0] * work.data_parallel_size
    for is_vector, padded in zip((False, True), pad_groups(weights, work.data_parallel_size), strict=True):
        group = [weight.elements for weight in weights if weight.is_vector == is_vector]
        share = padded // work.data_parallel_size
        end = 0
        for elements in group:
            first, end = end, end + elements
            for rank in range(first // share, (end - 1) // share + 1):
                most[rank] += elements
    return max(most)


def compute_checkpoint_bytes(shape: ModelShape) -> int:
    """Bytes of the tensors of a checkpoint, all files together: float32 weights and both moments.

    Padding, tied copies and shares of other ranks are not saved. Names and digests add some 300 bytes per tensor.
    """
    return 3 * FLOAT32 * shape.num_parameters


def compute_megatron_state_bytes(work: Workload) -> float:
    """Weights, gradients and optimizer states of Megatron's most loaded rank: 18 bytes per parameter, not shared.

    Source:
        Megatron-LM, `report_theoretical_memory`: bfloat16 weights, float32 gradients, float32 masters and moments.
    """
    weights = list_rank_weights(
        work.shape, work.tensor_parallel_size, work.pipeline_parallel_size, work.stage_borders, 0
    )
    return _STATE_BYTES_MEGATRON * sum(weight.elements for weight in weights)


def compute_megatron_peak_bytes(work: Workload) -> float:
    """All that Megatron's first stage holds: states, activations, one block done again, logits; bytes.

    Source:
        Korthikanti et al. 2022, sections 4.2.3 and 4.3: 4 s b v / t for float32 logits, beside their 16-bit form.
    """
    logits = 6.0 * work.micro_batch_tokens * work.shape.padded_vocab_size / work.tensor_parallel_size
    again = compute_block_bytes(dataclasses.replace(work, recompute="none")) if work.recompute == "full" else 0.0
    return compute_megatron_state_bytes(work) + compute_megatron_first_stage_bytes(work) + again + logits


def judge(memory: RankMemory, cluster: ClusterConfig) -> Verdict:
    """Whether a rank's memory fits its device."""
    return judge_bytes(memory.total, cluster)


def judge_bytes(size: float, cluster: ClusterConfig) -> Verdict:
    """As `judge`, for bytes."""
    share = size / (cluster.device.memory_gib * GIB)
    return "does not fit" if share > 1 else "tight" if share > _TIGHT_ABOVE else "fits"


def list_rank_memories(work: Workload, is_cpu: bool = False) -> list[RankMemory]:
    """Bytes of each pipeline rank, first to last."""
    return [compute_rank_memory(work, rank, is_cpu) for rank in range(work.pipeline_parallel_size)]
