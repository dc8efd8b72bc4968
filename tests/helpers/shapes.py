"""Small shapes of both families."""

import dataclasses
from typing import Any

from llmtrain.plan.model_shape import ModelShape

LLAMA = ModelShape(
    family="llama",
    num_layers=2,
    hidden_size=32,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=48,
    vocab_size=90,
    padded_vocab_size=128,
    max_sequence_length=64,
    tie_word_embeddings=False,
    norm_epsilon=1e-5,
    rope_theta=10_000.0,
    initializer_range=0.02,
)
GPT2 = dataclasses.replace(
    LLAMA, family="gpt2", num_key_value_heads=4, intermediate_size=128, tie_word_embeddings=True, rope_theta=0.0
)
SHAPES = {
    "llama": LLAMA,
    "llama_tied": dataclasses.replace(LLAMA, tie_word_embeddings=True, num_key_value_heads=4),
    "gpt2": GPT2,
    "gpt2_untied": dataclasses.replace(GPT2, tie_word_embeddings=False),
}


def change(shape: ModelShape, **changes: Any) -> ModelShape:
    """A shape with other sizes."""
    return dataclasses.replace(shape, **changes)
