"""Bytes that a forward pass keeps for the backward pass, by what the layers of each software save.

In: `Workload`. Out: bytes on one rank of one micro-batch, and how many micro-batches a pipeline keeps at one time.

What a block of llmtrain keeps with `activation_recompute: none`, in elements per token (D hidden size, Q query and K
key/value features, F inner features, t tensor-parallel size; S = D/t with sequence parallelism, D without):

    input of the attention norm             S        input of query_key_value           D (gathered)
    query_key_value                 (Q+2K)/t         turned queries and keys  (Q+K)/t   (Llama)
    attended values                      Q/t         log of the softmax's sum, float32, one per head
    input of the feed-forward norm          S        input of up or gate_up             D (gathered)
    up                                   F/t         activation                       F/t        (GPT-2)
    gate and up                         2F/t         activation, product             2F/t        (Llama)

`selective` keeps results of matrix products and of attention, and the block's input; `full` the block's input.

Under autocast the inputs of norms are float32, all else is in the format of products; and each forward pass keeps the
weights of its matrix products in that format.
"""

from llmtrain.plan.parameters import list_unit_weights
from llmtrain.plan.workload import Workload

FLOAT32 = 4


def compute_block_bytes(work: Workload, is_cpu: bool = False) -> float:
    """What one block keeps of one micro-batch, bytes.

    Args:
        work: the workload; its `software` says whose layers are counted.
        is_cpu: the device is a processor: torch has no fused RMSNorm there, and attention's result is copied once more.

    Source:
        llmtrain's: the table above, held against saved tensors in tests/plan/test_measured.py. Megatron's: Korthikanti
        et al. 2022, table 2.
    """
    if work.software == "megatron":
        return _compute_megatron_block_bytes(work)
    if work.recompute == "full":
        return _input_bytes(work)
    return _compute_selective_bytes(work) if work.recompute == "selective" else compute_whole_block_bytes(work, is_cpu)


def compute_whole_block_bytes(work: Workload, is_cpu: bool) -> float:
    """What one of our blocks keeps with nothing recomputed; with recompute, what it keeps while it is done again."""
    shape, tensor = work.shape, work.tensor_parallel_size
    hidden, outside = shape.hidden_size, shape.hidden_size / work.sequence_share
    query, key_value = _features(work)
    inner = shape.intermediate_size / tensor
    elements = 2 * hidden + (query + 2 * key_value) + query
    elements += (2 if shape.family == "gpt2" else 4) * inner
    statistics = 4.0 if shape.family == "gpt2" else 2.0
    if shape.family == "llama":
        elements += query + key_value
        if is_cpu:
            elements += query
    statistics = statistics * outside / hidden + shape.num_attention_heads / tensor
    kept = work.micro_batch_tokens * (work.compute_bytes * elements + FLOAT32 * statistics)
    kept += 2 * _input_bytes(work) + compute_cast_weight_bytes(work)
    return kept + (2 * _unfused_norm_bytes(work) if is_cpu else 0.0)


def compute_cast_weight_bytes(work: Workload) -> float:
    """Weights of one block's matrix products in the format of products, which autocast makes in each forward pass."""
    if not work.uses_autocast:
        return 0.0
    weights = list_unit_weights(work.shape, 1, work.tensor_parallel_size)
    products = sum(weight.elements for weight in weights if weight.component in ("attention", "feed-forward"))
    return float(work.compute_bytes * products)


def _unfused_norm_bytes(work: Workload) -> float:
    """What an RMSNorm on a processor keeps beside its input: the normalised values; and both in float32 if it casts."""
    if work.shape.family == "gpt2":
        return 0.0
    size = FLOAT32 if work.hidden_bytes == FLOAT32 else 2 * FLOAT32
    return size * work.micro_batch_tokens * work.shape.hidden_size / work.sequence_share


def _compute_selective_bytes(work: Workload) -> float:
    shape, tensor = work.shape, work.tensor_parallel_size
    query, key_value = _features(work)
    up = (1 if shape.family == "gpt2" else 2) * shape.intermediate_size / tensor
    elements = (query + 2 * key_value) + query + up + 2 * shape.hidden_size
    kept = work.micro_batch_tokens * (work.compute_bytes * elements + FLOAT32 * shape.num_attention_heads / tensor)
    return kept + _input_bytes(work)


def _features(work: Workload) -> tuple[float, float]:
    """Query features, and those of keys (or of values), of one rank."""
    shape = work.shape
    key_value_heads = max(1, shape.num_key_value_heads // work.tensor_parallel_size)
    return shape.num_attention_heads / work.tensor_parallel_size * shape.head_dim, float(
        key_value_heads * shape.head_dim
    )


def _input_bytes(work: Workload) -> float:
    return work.hidden_states_bytes / work.sequence_share


def _compute_megatron_block_bytes(work: Workload) -> float:
    """Bytes of Korthikanti et al. 2022, table 2, with 16-bit numbers and one-byte masks of dropout."""
    hidden, tensor = work.shape.hidden_size, work.tensor_parallel_size
    tokens_hidden = work.micro_batch_tokens * hidden
    if work.recompute == "full":
        return 2.0 * tokens_hidden
    scores = 5.0 * work.shape.num_attention_heads * work.sequence_length / hidden / tensor
    outside = 10.0 / work.sequence_share
    return tokens_hidden * (outside + 24.0 / tensor + (scores if work.recompute == "none" else 0.0))


def compute_output_bytes(work: Workload, is_cpu: bool = False) -> float:
    """What the output unit keeps of one micro-batch: the final norm's input, and the gradients that the loss makes.

    The loss makes the gradients of its input and of the projection in the forward pass (`losses.linear_cross_entropy`),
    the latter in float32.
    """
    shape, tokens = work.shape, work.micro_batch_tokens
    rows = shape.padded_vocab_size / work.tensor_parallel_size
    kept = _input_bytes(work) + tokens * work.compute_bytes * shape.hidden_size + FLOAT32 * rows * shape.hidden_size
    return kept + (_unfused_norm_bytes(work) if is_cpu else 0.0)


def compute_loss_bytes(work: Workload) -> float:
    """What the loss needs while it runs, bytes: logits of a chunk, in float32 and in the format of products.

    Where products are not in float32, also the gradient of the projection out of one chunk; under autocast the cast
    projection.
    """
    tokens = min(work.loss_chunk_tokens, work.micro_batch_tokens)
    rows = work.shape.padded_vocab_size / work.tensor_parallel_size
    if work.compute_bytes == FLOAT32:
        return FLOAT32 * tokens * rows
    weights = (2 if work.uses_autocast else 1) * rows * work.shape.hidden_size
    return (FLOAT32 + work.compute_bytes) * tokens * rows + work.compute_bytes * weights


def compute_output_backward_bytes(work: Workload) -> float:
    """What the backward pass of the loss needs, bytes: the projection's gradient, scaled, and cast to its format."""
    weight = work.shape.padded_vocab_size / work.tensor_parallel_size * work.shape.hidden_size
    return (FLOAT32 + (work.parameter_bytes if work.parameter_bytes != FLOAT32 else 0)) * weight


def compute_backward_working_bytes(work: Workload, is_cpu: bool = False) -> float:
    """What the backward pass of one block needs beside what was kept, bytes.

    The gradients of its output and of the activation that enters the last projection, and what is done again.
    """
    inner = work.shape.intermediate_size / work.tensor_parallel_size
    gradients = work.hidden_states_bytes + work.compute_bytes * work.micro_batch_tokens * inner
    if work.recompute == "none":
        return gradients
    return gradients + compute_whole_block_bytes(work, is_cpu) - compute_block_bytes(work, is_cpu)


def compute_mask_bytes(work: Workload) -> float:
    """The mask of document borders of one micro-batch: a byte for each pair of tokens, and its copy as numbers."""
    pairs = work.micro_batch_size * work.sequence_length**2
    return pairs * (1.0 + work.compute_bytes) if work.masks_documents else 0.0


def count_micro_batches_in_flight(work: Workload, stage: int) -> int:
    """Micro-batches whose activations a stage keeps at its peak.

    Args:
        work: the workload.
        stage: counted from the embedding; with DualPipeV the first half belongs to the way down.

    Source:
        1F1B: Narayanan et al. 2021, section 2.2.1. DualPipeV: 2 p + 1 of both stages of a rank together (DeepSeek-AI
        2024, table 2).
    """
    stages = len(work.stage_borders) - 1
    return min(stages - stage, work.gradient_accumulation_steps)


def compute_megatron_first_stage_bytes(work: Workload) -> float:
    """Activations of the first pipeline stage in Megatron, bytes: all layers' worth, more if interleaved.

    Source:
        Korthikanti et al. 2022, section 4.2.3: p micro-batches of l/p layers; times 1 + (p-1)/(p m) with m interleaved
        stages.
    """
    interleaved = (
        1 + (work.pipeline_parallel_size - 1) / (work.pipeline_parallel_size * work.virtual_stages)
        if work.virtual_stages > 1
        else 1.0
    )
    filled = min(1.0, work.gradient_accumulation_steps / work.pipeline_parallel_size)
    return compute_block_bytes(work) * work.shape.num_layers * interleaved * filled
