"""Bytes that a rank sends in one optimizer step of our engine, by the ranks to which it sends them.

In: `Workload`. Out: `Traffic`. Read off our layers and DeepSpeed 0.19, and held against what ranks really send in
tests/plan/test_traffic.py. With m micro-batches:

    data      ZeRO 0   gradients: all-reduced once
              ZeRO 1   gradients: all-reduced once; updated weights: gathered once
              ZeRO 2   gradients: all-reduced m times (DeepSpeed reduces to all and keeps a share); weights as ZeRO 1
              ZeRO 3   gradients: reduce-scattered m times; weights: gathered m times, those whose backward use is far
                       from their forward use 2 m times; small, persistent ones once
    tensor    of each micro-batch and block: hidden states, 2 sums over the group forward, 2 backward, and again what
              recompute repeats; the embedding's and the output's sum; gradients of weights that are the same on all
              ranks (sequence parallelism); 3 float32 numbers of each token for the loss
    pipeline  of each micro-batch: hidden states to the next stage, their gradients to the one before; once: the
              gradient of a tied embedding

Left out: messages of a few bytes (the step's losses, norms, stop flags), and what is sent in the first steps only: the
shapes that DeepSpeed's stages tell each other, the weights that ZeRO 3 gathers before it knows their order.
"""

from dataclasses import dataclass

from llmtrain.plan.parameters import find_stages, list_rank_weights
from llmtrain.plan.workload import Workload
from llmtrain.plan.zero import (
    gathered_number_bytes,
    is_persistent,
    pad_groups,
    pad_weight,
    reduced_number_bytes,
)
from llmtrain.plan.zero3 import Limits, count_gathers

FLOAT32 = 4
LIMITS = Limits()


@dataclass(frozen=True)
class Traffic:
    """Bytes that one rank sends in one optimizer step, by the groups in which it sends them.

    Collectives count as rings do them, a group of one rank as nothing. What passes between all ranks of a model belongs
    to the farthest of its axes: to the pipeline if there are stages, else to the tensor-parallel group.
    """

    data: float
    """To ranks with the same weights and other batches: gradients, and weights under ZeRO."""
    tensor: float
    """To ranks that share each weight matrix: hidden states, and what the loss needs of other ranks' vocabulary."""
    pipeline: float
    """To other stages: hidden states, their gradients, the gradient of a tied embedding."""

    @property
    def total(self) -> float:
        """Bytes to all ranks."""
        return self.data + self.tensor + self.pipeline


def all_reduce_bytes(size: float, ranks: int) -> float:
    """What each rank sends for a sum that every rank gets.

    Args:
        size: bytes that each rank puts in.
        ranks: in the group.

    Source:
        Ring: Patarasuk and Yuan 2009.
    """
    return 2 * gather_bytes(size, ranks)


def gather_bytes(size: float, ranks: int) -> float:
    """What each rank sends for a gather of parts, or for a sum of which each rank keeps a part.

    A message from one rank to all, or a sum on one, costs as much, as a mean over ranks: all but one pass it on.

    Args:
        size: of the whole, bytes.
        ranks: in the group.
    """
    return size * (ranks - 1) / ranks


def compute_traffic(work: Workload, pipeline_rank: int) -> Traffic:
    """Bytes that each rank of one pipeline rank sends in an optimizer step.

    Args:
        work: the workload; its `software` is ours.
        pipeline_rank: which of the pipeline's ranks.

    Source:
        llmtrain's `parallel/tensor_layers.py` and `pipeline_module.py`; deepspeed 0.19's `stage_1_and_2.py`
        (`average_tensor`, `step`), `stage3.py` (`__avg_scatter_grads`), `pipe/engine.py` (`_exec_reduce_tied_grads`).
    """
    return Traffic(
        _compute_zero3_bytes(work) if work.zero_stage == 3 else _compute_data_bytes(work, pipeline_rank),
        _compute_tensor_bytes(work, pipeline_rank) if work.tensor_parallel_size > 1 else 0.0,
        _compute_pipeline_bytes(work, pipeline_rank) if work.pipeline_parallel_size > 1 else 0.0,
    )


def list_traffic(work: Workload) -> list[Traffic]:
    """What a rank of each pipeline rank sends, first to last."""
    return [compute_traffic(work, rank) for rank in range(work.pipeline_parallel_size)]


def _compute_data_bytes(work: Workload, pipeline_rank: int) -> float:
    weights = list_rank_weights(
        work.shape, work.tensor_parallel_size, work.pipeline_parallel_size, work.stage_borders, pipeline_rank
    )
    ranks = work.data_parallel_size
    gradients = all_reduce_bytes(sum(weight.elements * reduced_number_bytes(work, weight) for weight in weights), ranks)
    if work.zero_stage == 0:
        return gradients
    gathered = gather_bytes(work.parameter_bytes * sum(pad_groups(weights, ranks)), ranks)
    return gradients * (work.gradient_accumulation_steps if work.zero_stage == 2 else 1) + gathered


def _compute_zero3_bytes(work: Workload) -> float:
    ranks = work.data_parallel_size
    is_recomputed = work.recompute != "none"
    gathers = count_gathers(work.shape, work.tensor_parallel_size, is_recomputed, work.zero3_persistent_below, LIMITS)
    once = each = 0
    for weight, times in gathers.weights:
        elements = pad_weight(weight, ranks)
        each += elements * (reduced_number_bytes(work, weight) + times * gathered_number_bytes(work, weight))
        if is_persistent(work, weight):
            once += elements * work.parameter_bytes
    return gather_bytes(once + work.gradient_accumulation_steps * each, ranks)


def count_repeated_sums(work: Workload) -> tuple[float, float]:
    """Sums over the tensor-parallel group that recompute does again in one block of one micro-batch.

    A forward and a backward pass together make two sums at the entries of attention and feed-forward, and two at their
    ends. Half a sum is a gather or a scatter (sequence parallelism), a whole one an all-reduce, which stands at the
    entries in backward only, at the ends in forward only. Recompute ends with the last tensor that the backward pass
    needs, the input of the feed-forward's second product, so the sum behind that product is not done again.

    Returns:
        At the entries; at the ends.

    Source:
        Korthikanti et al. 2022, section 4.2.2; early stop of `torch.utils.checkpoint`.
    """
    if work.recompute == "none":
        return 0.0, 0.0
    return (1.0, 0.5) if work.sequence_parallel else (0.0, 1.0)


def _compute_tensor_bytes(work: Workload, pipeline_rank: int) -> float:
    shape, ranks, borders = work.shape, work.tensor_parallel_size, work.stage_borders
    block, total = _compute_block_bytes(work), 0.0
    residual = work.hidden_states_bytes
    for stage in find_stages(pipeline_rank, work.pipeline_parallel_size, borders):
        start, stop = borders[stage], borders[stage + 1]
        total += (min(stop, shape.num_layers + 1) - max(start, 1)) * block
        if start == 0:
            total += all_reduce_bytes(residual, ranks)
            if shape.family == "gpt2":
                total += _replicated_bytes(work, shape.max_sequence_length * shape.hidden_size)
        if stop == shape.num_layers + 2:
            total += all_reduce_bytes(residual + 3 * FLOAT32 * work.micro_batch_tokens, ranks)
            total += _replicated_bytes(work, _count_norm_elements(work))
    return work.gradient_accumulation_steps * total


def _compute_block_bytes(work: Workload) -> float:
    """Of one micro-batch and one block."""
    shape, ranks = work.shape, work.tensor_parallel_size
    products = work.compute_bytes * work.micro_batch_tokens * shape.hidden_size
    entries, ends = count_repeated_sums(work)
    hidden = (2 + entries) * work.hidden_states_bytes + (2 + ends) * products
    vectors = 2 * _count_norm_elements(work) + (2 * shape.hidden_size if shape.family == "gpt2" else 0)
    sharers = max(1, ranks // shape.num_key_value_heads)
    shared = all_reduce_bytes(work.parameter_bytes * 2 * shape.head_dim * shape.hidden_size, sharers)
    return all_reduce_bytes(hidden, ranks) + _replicated_bytes(work, vectors) + shared


def _replicated_bytes(work: Workload, elements: int) -> float:
    """Gradients of weights that are the same on all ranks, where each rank saw another part of the sequence."""
    return all_reduce_bytes(work.parameter_bytes * elements, work.sequence_share)


def _count_norm_elements(work: Workload) -> int:
    return (2 if work.shape.family == "gpt2" else 1) * work.shape.hidden_size


def _compute_pipeline_bytes(work: Workload, pipeline_rank: int) -> float:
    shape, ranks = work.shape, work.pipeline_parallel_size
    owners = list(range(ranks))
    if work.is_two_way:
        owners += owners[::-1]
    sent = 0
    for stage in find_stages(pipeline_rank, ranks, work.stage_borders):
        neighbours = [other for other in (stage - 1, stage + 1) if 0 <= other < len(owners)]
        sent += sum(owners[other] != pipeline_rank for other in neighbours)
    messages = work.gradient_accumulation_steps * sent * work.hidden_states_bytes / work.sequence_share
    has_copy = shape.tie_word_embeddings and not work.is_two_way and pipeline_rank in (0, ranks - 1)
    table = shape.padded_vocab_size // work.tensor_parallel_size * shape.hidden_size
    return messages + (all_reduce_bytes(work.parameter_bytes * table, 2) if has_copy else 0.0)
