"""What is held beside the states at each moment of a step when memory may be at its peak.

    loss         all activations of the micro-batches in flight, and logits of a chunk
    output       no more logits, but the gradient of the projection to the vocabulary once more
    backward     what the last block's backward pass needs, and buckets for gradients
    reduction    a full bucket is flattened, and cast to the format of the sum; the activations before it are left
    update       this rank's gradients, put together, and in float32

Gradients of earlier micro-batches are there in all of them. In: `Workload`, what a rank holds. Out: `Moment`s, bytes.

Source:
    deepspeed 0.19: `runtime/engine.py`, `runtime/zero/stage_1_and_2.py`, `runtime/zero/stage3.py`,
    `runtime/zero/partition_parameters.py`; held against living tensors in tests/plan/test_peaks.py.
"""

from dataclasses import dataclass

from llmtrain.plan.activations import (
    FLOAT32,
    compute_backward_working_bytes,
    compute_block_bytes,
    compute_cast_weight_bytes,
    compute_loss_bytes,
    compute_mask_bytes,
    compute_output_backward_bytes,
    compute_output_bytes,
    count_micro_batches_in_flight,
)
from llmtrain.plan.parameters import find_stages
from llmtrain.plan.workload import Workload
from llmtrain.plan.zero3 import Limits, count_gathers

REDUCE_BUCKET_ELEMENTS = 500_000_000
"""The most of gradients that are reduced at once: DeepSpeed's default `reduce_bucket_size`."""

_PIPELINE_MESSAGES = 4
"""Messages that DeepSpeed's pipeline holds from step to step: what was received and sent last, both ways."""


@dataclass(frozen=True)
class Moment:
    """Bytes beside weights, masters and moments of the optimizer."""

    name: str
    gradients: float
    activations: float
    loss: float
    """What the loss needs while it runs: logits of a chunk."""
    buffers: float
    """Buckets, gathered weights, what is cast, and what a backward pass needs meanwhile."""

    @property
    def total(self) -> float:
        """All of them."""
        return self.gradients + self.activations + self.loss + self.buffers


def list_moments(work: Workload, pipeline_rank: int, held: int, gradients: float, is_cpu: bool) -> list[Moment]:
    """The moments of a step on each rank of one pipeline rank.

    Args:
        work: the workload.
        pipeline_rank: which of the pipeline's ranks.
        held: elements of the weights that the rank holds before ZeRO shares them.
        gradients: bytes that lie between the backward passes of two micro-batches.
        is_cpu: the device is a processor: gloo copies what it scatters.
    """
    activations, loss = compute_activations(work, pipeline_rank, is_cpu)
    kept = gradients if work.gradient_accumulation_steps > 1 or work.zero_stage == 3 else 0.0
    lasting, gathered = _compute_zero3_buffers(work, held)
    lasting += compute_mask_bytes(work)
    buckets, reducing, moved = _compute_reduction(work, held, kept, is_cpu)
    # ZeRO reduces gradients when a bucket is full; ZeRO 0 and a pipeline do after the last backward pass.
    is_early = work.zero_stage > 0 and work.pipeline_parallel_size == 1
    left = max(0.0, 1 - REDUCE_BUCKET_ELEMENTS / held) if is_early else 0.0
    working = compute_backward_working_bytes(work, is_cpu)
    own, together = _compute_update(work, held)
    # ZeRO 1 fills its buckets in the last micro-batch, and allocates them in the first.
    early = buckets if work.zero_stage == 1 and work.gradient_accumulation_steps > 1 else 0.0
    output = compute_output_backward_bytes(work) if loss else 0.0
    return [
        Moment("loss", kept, activations, loss, lasting + gathered + early),
        Moment("output", kept, activations, 0.0, lasting + gathered + early + output),
        Moment("backward", kept, activations, 0.0, lasting + gathered + buckets + working),
        Moment("reduction", moved, left * activations, 0.0, lasting + left * gathered + buckets + reducing),
        Moment("update", own, 0.0, 0.0, lasting + together),
    ]


def compute_activations(work: Workload, pipeline_rank: int, is_cpu: bool) -> tuple[float, float]:
    """What forward passes leave for backward passes, and what the loss needs, bytes.

    Args:
        work: the workload.
        pipeline_rank: which of the pipeline's ranks.
        is_cpu: the device is a processor.
    """
    borders, output = work.stage_borders, work.shape.num_layers + 1
    block, kept, loss = compute_block_bytes(work, is_cpu), 0.0, 0.0
    message = work.hidden_states_bytes / work.sequence_share
    if work.pipeline_parallel_size > 1:
        kept += _PIPELINE_MESSAGES * message
    for stage in find_stages(pipeline_rank, work.pipeline_parallel_size, borders):
        start, stop = borders[stage], borders[stage + 1]
        flying = count_micro_batches_in_flight(work, stage)
        blocks = min(stop, output) - max(start, 1)
        kept += flying * (blocks * block + (message if work.pipeline_parallel_size > 1 else 0.0))
        if stop > output:
            kept += flying * compute_output_bytes(work, is_cpu)
            # Weights that autocast casts for blocks that are done again live until the forward pass ends.
            again = blocks * compute_cast_weight_bytes(work) if work.recompute != "none" else 0.0
            loss = compute_loss_bytes(work) + again
    return kept, loss


def _compute_zero3_buffers(work: Workload, held: int) -> tuple[float, float]:
    """ZeRO 3's bucket, which is never given back, and weights that are gathered."""
    if work.zero_stage != 3:
        return 0.0, 0.0
    lasting = float(work.reduce_bytes * min(held, REDUCE_BUCKET_ELEMENTS))
    if work.data_parallel_size == 1:
        return lasting, 0.0
    gathers = count_gathers(
        work.shape, work.tensor_parallel_size, work.recompute != "none", work.zero3_persistent_below
    )
    # What is prefetched is gathered in one piece, and then put apart.
    return lasting, float(work.parameter_bytes * (gathers.most_live + min(gathers.most_live, Limits().prefetch)))


def _compute_reduction(work: Workload, held: int, kept: float, is_cpu: bool) -> tuple[float, float, float]:
    """Buckets that backward passes fill, what a reduction needs beside them, and gradients that lie elsewhere."""
    bucket = float(min(held, REDUCE_BUCKET_ELEMENTS))
    flattened = work.parameter_bytes * bucket
    cast = work.reduce_bytes * bucket if work.reduce_bytes != work.parameter_bytes else 0.0
    if work.zero_stage == 0:
        return 0.0, flattened + cast, float(work.parameter_bytes * held)
    if work.pipeline_parallel_size > 1:  # it reduces from a second bucket, in the format of the sum
        return flattened, 2 * work.reduce_bytes * bucket, 0.0
    if work.zero_stage == 3:
        return 0.0, work.reduce_bytes * bucket * (2 if is_cpu else 1), kept
    buckets = (2 if work.overlap_communication else 1) * flattened
    return buckets, flattened + cast, kept if work.zero_stage == 2 else kept * (1 - bucket / held)


def _compute_update(work: Workload, held: int) -> tuple[float, float]:
    """Gradients of the weights that this rank updates; and those put together, and in float32."""
    if work.zero_stage == 0:
        return float(work.parameter_bytes * held), 0.0
    share = held / work.data_parallel_size
    if work.offload_optimizer:
        return work.parameter_bytes * share, 0.0
    put_together = work.parameter_bytes * share if work.parameter_bytes != FLOAT32 else 0.0
    return work.parameter_bytes * share, put_together + FLOAT32 * share
