"""FLOPs of training. Two conventions stand beside each other, and each number says which one it is.

`causal`: only the half of the score matrix that the mask leaves, as flash attention computes it. Our own MFU.
`full`: the whole score matrix, as the Megatron papers and PaLM count it; published MFU compares with this one only.
"""

from typing import Literal

from llmtrain.plan.model_shape import ModelShape

Attention = Literal["causal", "full"]
Recompute = Literal["none", "selective", "full"]

PETAFLOP_DAY = 8.64e19
"""FLOPs of a petaflop/s-day."""


def compute_block_forward_flops(shape: ModelShape, sequence_length: int, attention: Attention) -> tuple[float, float]:
    """Forward FLOPs of one block per token.

    Args:
        shape: of the model.
        sequence_length: tokens per sequence.
        attention: how much of the score matrix is counted.

    Returns:
        Those of matrix products with weights, and those of the two products of attention.

    Source:
        Narayanan et al. 2021, appendix, equation 3: 24 h^2 + 4 s h with multi-head attention and 4 h inner features.
    """
    hidden, query = shape.hidden_size, shape.num_attention_heads * shape.head_dim
    key_value = shape.num_key_value_heads * shape.head_dim
    projections = hidden * (query + 2 * key_value) + query * hidden
    feed_forward = (2 if shape.family == "gpt2" else 3) * hidden * shape.intermediate_size
    keys = sequence_length if attention == "full" else sequence_length / 2
    return 2.0 * (projections + feed_forward), 4.0 * query * keys


def compute_flops_per_token(
    shape: ModelShape,
    sequence_length: int,
    attention: Attention = "causal",
    recompute: Recompute = "none",
    counts_padding: bool = False,
) -> float:
    """FLOPs of forward, backward (twice the forward) and what is recomputed, per token.

    Args:
        shape: of the model.
        sequence_length: tokens per sequence.
        attention: how much of the score matrix is counted.
        recompute: `full` counts every block's forward pass once more; `selective` attention's products twice, as
            Korthikanti et al. 2022 do (they are repeated once). llmtrain's own `selective` repeats no matrix product.
        counts_padding: output projection over the padded vocabulary, as the Megatron papers count it.

    Source:
        Korthikanti et al. 2022, equations 7 and 8; with `full`, Narayanan et al. 2021, equation 3.
    """
    products, scores = compute_block_forward_flops(shape, sequence_length, attention)
    vocab_size = shape.padded_vocab_size if counts_padding else shape.vocab_size
    block = 3 * (products + scores)
    if recompute == "full":
        block += products + scores
    elif recompute == "selective":
        block += 3 * scores
    return shape.num_layers * block + 6.0 * shape.hidden_size * vocab_size


def compute_simple_training_flops(
    parameters: float, tokens: float, flops_per_parameter_and_token: float = 6.0
) -> float:
    """FLOPs of a run by the rule of thumb: two per parameter and token forward, four backward.

    Source:
        Brown et al. 2020, appendix D; Kaplan et al. 2020, section 2.1.
    """
    return flops_per_parameter_and_token * parameters * tokens
