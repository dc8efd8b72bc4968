"""Time of one optimizer step on a described cluster: a roofline for each block, plus collectives, bubble and update.

    step = micro-batches x (slowest stage) x (1 + bubble) + exposed reduction of gradients + update

A block's time is its matrix products at a share of the peak, plus all bytes that pass through memory, plus the
collectives of tensor parallelism that nothing hides. In: `Workload`, `ClusterConfig`. Out: `StepTime`, seconds.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields

from llmtrain.config.cluster import ClusterConfig
from llmtrain.plan.collectives import all_reduce_seconds, find_link, gather_seconds, send_seconds
from llmtrain.plan.flops import Attention, compute_block_forward_flops, compute_flops_per_token
from llmtrain.plan.parameters import Weight, count_rank_weights
from llmtrain.plan.traffic import count_repeated_sums
from llmtrain.plan.workload import Workload
from llmtrain.plan.zero import gathered_number_bytes, reduced_number_bytes

_BACKWARD_PRODUCTS = 2.0
_BACKWARD_FUSED_ATTENTION = 2.5
"""Five products where forward has two: the scores are made again (Dao 2023, FlashAttention-2, section 2.3)."""
_BACKWARD_TRAFFIC = 1.5
"""Bytes of element-wise work and of attention in backward over those in forward."""
_UNFUSED_TRAFFIC = 2.0
"""Element-wise work one operation at a time over that of fused kernels; assumed."""
_UPDATE_BYTES = 50
"""Read and written per parameter that a rank updates: gradient, its norm, master, both moments, rounded weight."""
_SCORE_BYTES = 13
"""Per element of the score matrix, forward, without a fused kernel: product, softmax, dropout and its mask, product."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step of the slowest rank, by what they are spent on."""

    compute: float
    """Forward and backward of all micro-batches, without what is done twice."""
    recompute: float
    tensor_communication: float
    pipeline_communication: float
    bubble: float
    data_communication: float
    """Gradients and, with ZeRO, weights: what computing does not hide."""
    update: float

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return float(sum(getattr(self, field.name) for field in fields(self)))


@dataclass(frozen=True)
class BlockTime:
    """Seconds of one block and one micro-batch on one rank; `forward` and `backward` without communication."""

    forward: float
    backward: float
    repeated: float
    """What recompute does again."""
    forward_communication: float
    backward_communication: float
    repeated_communication: float


def compute_block_time(work: Workload, cluster: ClusterConfig) -> BlockTime:
    """The roofline of one block.

    Source:
        Roofline: Williams et al. 2009. Collectives of a block: Shoeybi et al. 2019, section 3, and Korthikanti et al.
        2022, section 4.2.
    """
    tokens, shape = work.micro_batch_tokens, work.shape
    products, scores = compute_block_forward_flops(shape, work.sequence_length, _counted_attention(work))
    product_seconds = tokens * products / work.tensor_parallel_size / _flops(work, cluster)
    product_traffic = _product_bytes(work) / _memory(cluster)
    is_fused = _is_attention_fused(work)
    share = cluster.efficiency.fused_attention if is_fused else cluster.efficiency.matrix_products
    score_seconds = tokens * scores / work.tensor_parallel_size / (peak_flops(work, cluster) * share)
    score_traffic = _score_bytes(work) / _memory(cluster)
    other = _elementwise_bytes(work) / _memory(cluster)
    forward = product_seconds + product_traffic + score_seconds + score_traffic + other
    backward = _BACKWARD_PRODUCTS * (product_seconds + product_traffic)
    backward += (_BACKWARD_FUSED_ATTENTION if is_fused else _BACKWARD_PRODUCTS) * score_seconds
    backward += _BACKWARD_TRAFFIC * (score_traffic + other)
    communication, backward_communication, repeated_communication = _tensor_communication(work, cluster)
    repeated = 0.0
    if work.recompute == "full":
        repeated = forward
    elif work.recompute == "selective":
        repeated = score_seconds + score_traffic if work.software == "megatron" else other
    return BlockTime(forward, backward, repeated, communication, backward_communication, repeated_communication)


def compute_head_time(work: Workload, cluster: ClusterConfig) -> float:
    """Output projection and loss of one micro-batch, forward and backward, seconds on the rank that has them."""
    rows, hidden = work.shape.padded_vocab_size / work.tensor_parallel_size, work.shape.hidden_size
    tokens = work.micro_batch_tokens
    products = 6.0 * tokens * hidden * rows / _flops(work, cluster)
    # Logits in float32 and in the number format of products: written and read a few times.
    traffic = tokens * rows * (4 * 6 + work.compute_bytes * 4) / _memory(cluster)
    return products + traffic


def compute_step_time(work: Workload, cluster: ClusterConfig) -> StepTime:
    """Seconds of one optimizer step.

    Source:
        Bubble of 1F1B and of interleaved stages: Narayanan et al. 2021, section 2.2. Volume of gradients and weights
        under ZeRO: Rajbhandari et al. 2020, section 7.
    """
    block, head = compute_block_time(work, cluster), compute_head_time(work, cluster)
    blocks, has_head = _slowest_stage(work, block.forward + block.backward, head)
    count = work.gradient_accumulation_steps
    compute = count * (blocks * (block.forward + block.backward) + (head if has_head else 0.0))
    repeated = count * blocks * block.repeated
    talking = blocks * (block.forward_communication + block.backward_communication + block.repeated_communication)
    talking = count * (talking + _tensor_ends_communication(work, cluster))
    busy = compute + repeated + talking
    messages = _pipeline_messages(work, cluster)
    bubble = (
        (busy + messages) * (work.pipeline_parallel_size - 1) / (count * work.virtual_stages)
        if work.pipeline_parallel_size > 1
        else 0.0
    )
    if work.is_two_way:
        bubble /= 2
    reduction = _data_communication(work, cluster, busy)
    return StepTime(compute, repeated, talking, messages, bubble, reduction, _update_seconds(work, cluster))


def compute_model_flops_utilization(
    work: Workload, cluster: ClusterConfig, seconds: float, attention: Attention = "causal"
) -> float:
    """Model FLOPs of a step over what the devices could do meanwhile, a fraction (MFU).

    Source:
        PaLM, Chowdhery et al. 2022, appendix B.
    """
    counted = compute_flops_per_token(work.shape, work.sequence_length, attention, counts_padding=attention == "full")
    return work.tokens_per_step * counted / (seconds * work.world_size * peak_flops(work, cluster))


def peak_flops(work: Workload, cluster: ClusterConfig) -> float:
    """Peak of one device in the number format of the matrix products, FLOP/s."""
    device = cluster.device
    return 1e12 * (device.bfloat16_teraflops if work.compute_bytes == 2 else device.float32_teraflops)


def _is_attention_fused(work: Workload) -> bool:
    return work.software == "llmtrain" and not work.masks_documents


def _counted_attention(work: Workload) -> Attention:
    return "causal" if _is_attention_fused(work) else "full"


def _flops(work: Workload, cluster: ClusterConfig) -> float:
    return peak_flops(work, cluster) * cluster.efficiency.matrix_products


def _memory(cluster: ClusterConfig) -> float:
    return cluster.device.memory_gb_per_second * 1e9 * cluster.efficiency.memory


def _product_bytes(work: Workload) -> float:
    """Operands and results of the matrix products of a block's forward pass."""
    shape, tokens, tensor = work.shape, work.micro_batch_tokens, work.tensor_parallel_size
    hidden, query = shape.hidden_size, shape.num_attention_heads * shape.head_dim / tensor
    fused = query + 2 * shape.num_key_value_heads * shape.head_dim / tensor
    up = (1 if shape.family == "gpt2" else 2) * shape.intermediate_size / tensor
    down = shape.intermediate_size / tensor
    sizes = ((hidden, fused), (query, hidden), (hidden, up), (down, hidden))
    return work.compute_bytes * sum(tokens * (rows + columns) + rows * columns for rows, columns in sizes)


def _score_bytes(work: Workload) -> float:
    shape, tokens = work.shape, work.micro_batch_tokens
    if not _is_attention_fused(work):
        return _SCORE_BYTES * shape.num_attention_heads / work.tensor_parallel_size * tokens * work.sequence_length
    width = (2 * shape.num_attention_heads + 2 * shape.num_key_value_heads) * shape.head_dim
    return work.compute_bytes * tokens * width / work.tensor_parallel_size


def _elementwise_bytes(work: Workload) -> float:
    """Norms, residual additions, activations, rotations of a block's forward pass."""
    shape, tokens, size = work.shape, work.micro_batch_tokens, work.compute_bytes
    outside = 11 * shape.hidden_size / work.sequence_share
    heads = (shape.num_attention_heads + 2 * shape.num_key_value_heads) * shape.head_dim
    inner = (2 if shape.family == "gpt2" else 5) * shape.intermediate_size
    fused = size * tokens * (outside + (2 * heads + inner) / work.tensor_parallel_size)
    return fused if work.compiled else _UNFUSED_TRAFFIC * fused


def _tensor_communication(work: Workload, cluster: ClusterConfig) -> tuple[float, float, float]:
    """Two sums of hidden states in the forward pass of a block, two in the backward pass, and those done again.

    With sequence parallelism each is a gather at the entry of attention or feed-forward, and a scatter at its end;
    without, forward sums stand at the ends and backward ones at the entries (`plan.traffic`).
    """
    products = work.compute_bytes * work.micro_batch_tokens * work.shape.hidden_size
    end = all_reduce_seconds(products, work.tensor_parallel_size, 1, work.world_size, cluster)
    if work.software == "megatron":
        # It keeps parts of the sequence and gathers them again.
        backward = (3 if work.sequence_parallel else 2) * end
        return 2 * end, backward, 2 * end if work.recompute == "full" else 0.0
    entry = all_reduce_seconds(work.hidden_states_bytes, work.tensor_parallel_size, 1, work.world_size, cluster)
    entries_again, ends_again = count_repeated_sums(work)
    again = entries_again * entry + ends_again * end
    return (entry + end, entry + end, again) if work.sequence_parallel else (2 * end, 2 * entry, again)


def _tensor_ends_communication(work: Workload, cluster: ClusterConfig) -> float:
    """Sums of hidden states behind the embedding and before the output; a rank in the middle waits for them."""
    if work.software == "megatron":
        return 0.0
    ends = 2 if work.pipeline_parallel_size == 1 or work.is_two_way else 1
    return ends * all_reduce_seconds(work.hidden_states_bytes, work.tensor_parallel_size, 1, work.world_size, cluster)


def _slowest_stage(work: Workload, block: float, head: float) -> tuple[int, bool]:
    """Blocks of the costliest pipeline rank, and whether it has the head."""
    borders, last = work.stage_borders, work.shape.num_layers + 1
    counts = [min(stop, last) - max(start, 1) for start, stop in itertools.pairwise(borders)]
    if work.is_two_way:
        counts = [counts[rank] + counts[-1 - rank] for rank in range(work.pipeline_parallel_size)]
    head_rank = 0 if work.is_two_way else work.pipeline_parallel_size - 1
    costs = [
        (count * block + (head if rank == head_rank else 0.0), count, rank == head_rank)
        for rank, count in enumerate(counts)
    ]
    _, blocks, has_head = max(costs)
    return blocks, has_head


def _pipeline_messages(work: Workload, cluster: ClusterConfig) -> float:
    """Hidden states to the next stage and gradients back, each micro-batch."""
    if work.pipeline_parallel_size == 1:
        return 0.0
    share = work.tensor_parallel_size if work.software == "megatron" else work.sequence_share
    size = work.hidden_states_bytes / share
    # With stages on several machines some message of each trip leaves one, and the slowest sets the pace.
    stride = work.tensor_parallel_size * work.data_parallel_size
    link = find_link(work.pipeline_parallel_size, stride, work.world_size, cluster)
    seconds = send_seconds(size, link, cluster)
    trips = work.virtual_stages * (2 if work.is_two_way else 1)
    return 2 * work.gradient_accumulation_steps * trips * seconds


def count_rank_parameters(work: Workload) -> int:
    """Elements held by the rank that holds most, before ZeRO shares anything."""
    return int(_sum_largest(work, lambda weight: 1))


def _sum_largest(work: Workload, number_bytes: Callable[[Weight], int]) -> float:
    """Bytes of weights of the pipeline rank where they are most."""
    ranks = count_rank_weights(work.shape, work.tensor_parallel_size, work.pipeline_parallel_size, work.stage_borders)
    return max(
        float(sum(count * weight.elements * number_bytes(weight) for weight, count in weights)) for weights in ranks
    )


def _data_communication(work: Workload, cluster: ClusterConfig, busy: float) -> float:
    """Sum of gradients over data-parallel ranks and, under ZeRO, the gather of weights."""
    if work.data_parallel_size == 1:
        return 0.0
    stride = work.tensor_parallel_size
    gradients = _sum_largest(work, lambda weight: reduced_number_bytes(work, weight))
    weights = _sum_largest(
        work, lambda weight: gathered_number_bytes(work, weight) if work.zero_stage == 3 else work.parameter_bytes
    )
    if work.zero_stage == 0:
        once = all_reduce_seconds(gradients, work.data_parallel_size, stride, work.world_size, cluster)
        return once if not work.overlap_communication else max(once * (1 - cluster.efficiency.overlap), once - busy)
    # ZeRO 1 and 2 of DeepSpeed sum gradients on every rank, of which each keeps its share (`plan.traffic`).
    reduce_seconds = gather_seconds if work.zero_stage == 3 else all_reduce_seconds
    reduced = reduce_seconds(gradients, work.data_parallel_size, stride, work.world_size, cluster)
    gathered = gather_seconds(weights, work.data_parallel_size, stride, work.world_size, cluster)
    if work.zero_stage == 1:
        hideable, open_ = reduced, gathered
    elif work.zero_stage == 2:
        hideable, open_ = reduced * work.gradient_accumulation_steps, gathered
    else:
        passes = 3 if work.recompute != "none" else 2
        hideable, open_ = (reduced + passes * gathered) * work.gradient_accumulation_steps, 0.0
    if not work.overlap_communication:
        return hideable + open_
    return max(hideable * (1 - cluster.efficiency.overlap), hideable - busy) + open_


def _update_seconds(work: Workload, cluster: ClusterConfig) -> float:
    owners = work.data_parallel_size if work.zero_stage else 1
    return count_rank_parameters(work) / owners * _UPDATE_BYTES / _memory(cluster)
