"""Section `model`: the GPT-2/3 family or the Llama family."""

from typing import Annotated, Literal

from pydantic import Field

from llmtrain.config.section import PositiveFloat, PositiveInt, Section


class _Decoder(Section):
    num_layers: PositiveInt
    """Transformer blocks."""
    hidden_size: PositiveInt
    """Width of the residual stream."""
    num_attention_heads: PositiveInt
    """Query heads; must divide `hidden_size`."""
    vocab_size: PositiveInt | None = None
    """Tokenizer size; null = read from the tokenizer in `data.folder`. Set, it must equal that."""
    pad_vocab_to_multiple_of: PositiveInt = 64
    """Rows of the embedding are padded up to a multiple of this; padded rows never get probability."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the initial weights; output projections get this / sqrt(2 * num_layers) (GPT-2)."""


class GPT2ModelConfig(_Decoder):
    """GPT-2/3: learned positions, LayerNorm, GELU (tanh), biases. Radford et al. 2019, Brown et al. 2020."""

    family: Literal["gpt2"]
    """Architecture."""
    intermediate_size: PositiveInt | None = None
    """Width of the feed-forward layer; null = 4 * hidden_size."""
    norm_epsilon: PositiveFloat = 1e-5
    """Epsilon of LayerNorm."""
    tie_word_embeddings: bool = True
    """The output projection shares the embedding's weight."""


class LlamaModelConfig(_Decoder):
    """Llama: rotary positions, RMSNorm, SwiGLU, grouped-query attention. Touvron et al. 2023."""

    family: Literal["llama"]
    """Architecture."""
    intermediate_size: PositiveInt
    """Width of the feed-forward layer."""
    num_key_value_heads: PositiveInt | None = None
    """Key/value heads; null = num_attention_heads. Must divide `num_attention_heads`."""
    rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary frequencies (Su et al. 2021)."""
    norm_epsilon: PositiveFloat = 1e-5
    """Epsilon of RMSNorm."""
    tie_word_embeddings: bool = False
    """The output projection shares the embedding's weight."""


ModelConfig = Annotated[GPT2ModelConfig | LlamaModelConfig, Field(discriminator="family")]
