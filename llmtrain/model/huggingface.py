"""Our weights <-> stock Hugging Face classes: GPT2LMHeadModel and LlamaForCausalLM, never a class of our own.

Only names and layouts differ: fused projections are split, GPT-2's linear weights lie transposed there, and rows that
pad the vocabulary exist here only.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from llmtrain.errors import CheckpointError
from llmtrain.plan.model_shape import ModelShape

Weights = Mapping[str, torch.Tensor]

_PAD_MULTIPLE = 64


def build_huggingface_config(shape: ModelShape, special_ids: Mapping[str, int]) -> Any:
    """The configuration object of the stock class.

    Args:
        shape: of the model.
        special_ids: `bos_token_id`, `eos_token_id`, `pad_token_id`.
    """
    from transformers import GPT2Config, LlamaConfig  # takes seconds

    if shape.family == "gpt2":
        return GPT2Config(
            vocab_size=shape.vocab_size,
            n_positions=shape.max_sequence_length,
            n_embd=shape.hidden_size,
            n_layer=shape.num_layers,
            n_head=shape.num_attention_heads,
            n_inner=shape.intermediate_size,
            activation_function="gelu_new",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            layer_norm_epsilon=shape.norm_epsilon,
            initializer_range=shape.initializer_range,
            tie_word_embeddings=shape.tie_word_embeddings,
            **special_ids,
        )
    return LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_sequence_length,
        rms_norm_eps=shape.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        initializer_range=shape.initializer_range,
        tie_word_embeddings=shape.tie_word_embeddings,
        **special_ids,
    )


def read_huggingface_shape(folder: Path) -> ModelShape:
    """The shape of a saved Hugging Face model.

    Raises:
        CheckpointError: it is no GPT-2 or Llama, or has settings that this model does not; each is named.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: not a Hugging Face model: {error}") from error
    if config.model_type == "gpt2":
        wanted = {
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "reorder_and_upcast_attn": (False,),
            "add_cross_attention": (False,),
        }
    elif config.model_type == "llama":
        wanted = {
            "hidden_act": ("silu",),
            "attention_bias": (False,),
            "mlp_bias": (False,),
            "head_dim": (config.hidden_size // config.num_attention_heads,),
        }
        rope_type = (config.rope_parameters or {}).get("rope_type", "default")
        if rope_type != "default":
            raise CheckpointError(f"{folder}: rope_type = '{rope_type}'. Only plain rotary positions are supported.")
    else:
        raise CheckpointError(f"{folder}: model type '{config.model_type}'. Supported: gpt2, llama.")
    for key, allowed in wanted.items():
        value = getattr(config, key, allowed[0])
        if value not in allowed:
            raise CheckpointError(f"{folder}: {key} = {value!r}. Supported: {', '.join(map(repr, allowed))}.")
    return _to_shape(config)


def _to_shape(config: Any) -> ModelShape:
    is_gpt2 = config.model_type == "gpt2"
    heads = config.num_attention_heads
    return ModelShape(
        family="gpt2" if is_gpt2 else "llama",
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        num_attention_heads=heads,
        num_key_value_heads=heads if is_gpt2 else config.num_key_value_heads,
        head_dim=config.hidden_size // heads,
        intermediate_size=(config.n_inner or 4 * config.hidden_size) if is_gpt2 else config.intermediate_size,
        vocab_size=config.vocab_size,
        padded_vocab_size=-(-config.vocab_size // _PAD_MULTIPLE) * _PAD_MULTIPLE,
        max_sequence_length=config.max_position_embeddings,
        tie_word_embeddings=config.tie_word_embeddings,
        norm_epsilon=config.layer_norm_epsilon if is_gpt2 else config.rms_norm_eps,
        rope_theta=0.0 if is_gpt2 else config.rope_parameters["rope_theta"],
        initializer_range=config.initializer_range,
    )


def to_huggingface(weights: Weights, shape: ModelShape) -> dict[str, torch.Tensor]:
    """Weights by the names of the stock class; padded rows are left out."""
    result = {their_name: _export(weights, ours, shape) for their_name, ours in _list_parts(shape)}
    if shape.tie_word_embeddings:
        result["lm_head.weight"] = result[_names(shape)["embedding.token.weight"]]
    return result


def from_huggingface(weights: Weights, shape: ModelShape) -> dict[str, torch.Tensor]:
    """Weights by canonical name; the vocabulary is not padded."""
    pieces: dict[str, dict[int, torch.Tensor]] = {}
    for their_name, (our_name, part, is_transposed) in _list_parts(shape):
        tensor = weights[their_name]
        pieces.setdefault(our_name, {})[part] = tensor.t() if is_transposed else tensor
    return {name: torch.cat([parts[i] for i in sorted(parts)]).contiguous() for name, parts in pieces.items()}


def pad_vocabulary(name: str, weight: torch.Tensor, shape: ModelShape) -> torch.Tensor:
    """The weight with zero rows for the padded vocabulary, if it is one that has them."""
    if name not in ("embedding.token.weight", "head.weight"):
        return weight
    return torch.cat([weight, weight.new_zeros(shape.padded_vocab_size - len(weight), shape.hidden_size)])


# Our name, which part of a fused tensor, and whether it lies transposed over there.
_Part = tuple[str, int, bool]


def _export(weights: Weights, part: _Part, shape: ModelShape) -> torch.Tensor:
    name, index, is_transposed = part
    tensor = weights[name]
    if name in ("embedding.token.weight", "head.weight"):
        tensor = tensor[: shape.vocab_size]
    sizes = _part_sizes(name, shape)
    if sizes is not None:
        tensor = torch.split(tensor, sizes)[index]
    return (tensor.t() if is_transposed else tensor).contiguous()


def _part_sizes(name: str, shape: ModelShape) -> list[int] | None:
    if shape.family == "gpt2":
        return None  # fused there as here
    if name.endswith("query_key_value.weight"):
        query, key_value = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
        return [query, key_value, key_value]
    if name.endswith("gate_up.weight"):
        return [shape.intermediate_size, shape.intermediate_size]
    return None


def _names(shape: ModelShape) -> dict[str, str]:
    """Names outside of the blocks."""
    if shape.family == "gpt2":
        return {
            "embedding.token.weight": "transformer.wte.weight",
            "embedding.position.weight": "transformer.wpe.weight",
            "final_norm.weight": "transformer.ln_f.weight",
            "final_norm.bias": "transformer.ln_f.bias",
        }
    return {"embedding.token.weight": "model.embed_tokens.weight", "final_norm.weight": "model.norm.weight"}


def _list_parts(shape: ModelShape) -> Iterator[tuple[str, _Part]]:
    """Every tensor of the stock class, and which part of which of our tensors it is."""
    for ours, theirs in _names(shape).items():
        yield theirs, (ours, 0, False)
    if not shape.tie_word_embeddings:
        yield "lm_head.weight", ("head.weight", 0, False)
    for layer in range(shape.num_layers):
        if shape.family == "gpt2":
            yield from _list_gpt2_block(f"transformer.h.{layer}", f"blocks.{layer}")
        else:
            yield from _list_llama_block(f"model.layers.{layer}", f"blocks.{layer}")


def _list_gpt2_block(theirs: str, ours: str) -> Iterator[tuple[str, _Part]]:
    linears = {
        "attn.c_attn": "attention.query_key_value",
        "attn.c_proj": "attention.output",
        "mlp.c_fc": "feed_forward.up",
        "mlp.c_proj": "feed_forward.down",
    }
    for their_name, our_name in linears.items():
        yield f"{theirs}.{their_name}.weight", (f"{ours}.{our_name}.weight", 0, True)
        yield f"{theirs}.{their_name}.bias", (f"{ours}.{our_name}.bias", 0, False)
    for their_name, our_name in {"ln_1": "attention_norm", "ln_2": "feed_forward_norm"}.items():
        for kind in ("weight", "bias"):
            yield f"{theirs}.{their_name}.{kind}", (f"{ours}.{our_name}.{kind}", 0, False)


def _list_llama_block(theirs: str, ours: str) -> Iterator[tuple[str, _Part]]:
    parts = {
        "self_attn.q_proj": ("attention.query_key_value", 0),
        "self_attn.k_proj": ("attention.query_key_value", 1),
        "self_attn.v_proj": ("attention.query_key_value", 2),
        "self_attn.o_proj": ("attention.output", 0),
        "mlp.gate_proj": ("feed_forward.gate_up", 0),
        "mlp.up_proj": ("feed_forward.gate_up", 1),
        "mlp.down_proj": ("feed_forward.down", 0),
        "input_layernorm": ("attention_norm", 0),
        "post_attention_layernorm": ("feed_forward_norm", 0),
    }
    for their_name, (our_name, index) in parts.items():
        yield f"{theirs}.{their_name}.weight", (f"{ours}.{our_name}.weight", index, False)
