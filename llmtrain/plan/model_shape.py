"""The resolved shape of a network: every size a model is built from, and what it costs.

In: section `model`, the tokenizer's size, the sequence length. Out: `ModelShape`, plain numbers, no torch.
"""

import math
from dataclasses import dataclass
from typing import Literal

from llmtrain.config.model import GPT2ModelConfig, LlamaModelConfig


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder. `max_sequence_length` is the number of learned positions in the GPT-2 family."""

    family: Literal["gpt2", "llama"]
    num_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    padded_vocab_size: int
    max_sequence_length: int
    tie_word_embeddings: bool
    norm_epsilon: float
    rope_theta: float
    initializer_range: float

    @property
    def num_parameters(self) -> int:
        """Trained parameters, without the padded rows of the vocabulary; tied weights count once."""
        hidden, inner = self.hidden_size, self.intermediate_size
        query, key_value = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        if self.family == "gpt2":
            attention = hidden * (query + 2 * key_value) + (query + 2 * key_value) + query * hidden + hidden
            feed_forward = 2 * hidden * inner + inner + hidden
            norms, final_norm, positions = 4 * hidden, 2 * hidden, self.max_sequence_length * hidden
        else:
            attention = hidden * (query + 2 * key_value) + query * hidden
            feed_forward = 3 * hidden * inner
            norms, final_norm, positions = 2 * hidden, hidden, 0
        embeddings = self.vocab_size * hidden * (1 if self.tie_word_embeddings else 2)
        return self.num_layers * (attention + feed_forward + norms) + final_norm + positions + embeddings

    def compute_flops_per_token(self, sequence_length: int) -> float:
        """Model FLOPs of forward and backward per token: every multiply-add that the maths needs, none recomputed.

        Attention is counted as causal (half of the score matrix); the output projection over the real vocabulary.

        Source:
            PaLM, Chowdhery et al. 2022, appendix B (there with the full score matrix).
        """
        hidden, inner = self.hidden_size, self.intermediate_size
        query, key_value = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        projections = hidden * (query + 2 * key_value) + query * hidden
        feed_forward = (2 if self.family == "gpt2" else 3) * hidden * inner
        scores = query * sequence_length  # two products, half of the matrix
        multiply_adds = self.num_layers * (projections + feed_forward + scores) + hidden * self.vocab_size
        return 6.0 * multiply_adds


def build_model_shape(
    config: GPT2ModelConfig | LlamaModelConfig,
    tokenizer_vocab_size: int,
    sequence_length: int,
    tensor_parallel_size: int = 1,
) -> ModelShape:
    """Resolve section `model`.

    Args:
        config: section `model`.
        tokenizer_vocab_size: ids of the tokenizer; used where the config leaves `vocab_size` null.
        sequence_length: tokens per sequence.
        tensor_parallel_size: ranks that share the vocabulary's rows, each the same number of them.
    """
    vocab_size = config.vocab_size if config.vocab_size is not None else tokenizer_vocab_size
    multiple = math.lcm(config.pad_vocab_to_multiple_of, tensor_parallel_size)
    key_value_heads = config.num_key_value_heads if isinstance(config, LlamaModelConfig) else None
    return ModelShape(
        family=config.family,
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=key_value_heads or config.num_attention_heads,
        head_dim=config.hidden_size // config.num_attention_heads,
        intermediate_size=config.intermediate_size or 4 * config.hidden_size,
        vocab_size=vocab_size,
        padded_vocab_size=-(-vocab_size // multiple) * multiple,
        max_sequence_length=sequence_length,
        tie_word_embeddings=config.tie_word_embeddings,
        norm_epsilon=config.norm_epsilon,
        rope_theta=config.rope_theta if isinstance(config, LlamaModelConfig) else 0.0,
        initializer_range=config.initializer_range,
    )
