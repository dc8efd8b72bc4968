"""Causal self-attention with grouped key/value heads.

Shapes: B batch, T tokens, D hidden size, H query heads, G key/value heads, K dimensions of a head, S keys so far.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from llmtrain.model.rotary import rotate
from llmtrain.plan.model_shape import ModelShape


@dataclass
class AttentionContext:
    """What all blocks of one forward pass share.

    `rotation` is None in the GPT-2 family; `mask_B1TT` is None for plain causal attention, else True where a query
    may see a key.
    """

    rotation: tuple[torch.Tensor, torch.Tensor] | None
    mask_B1TT: torch.Tensor | None


class KeyValueCache:
    """Keys and values of the tokens generated so far, for one attention layer."""

    def __init__(self) -> None:
        self.keys_BGSK: torch.Tensor | None = None
        self.values_BGSK: torch.Tensor | None = None

    def extend(self, keys_BGTK: torch.Tensor, values_BGTK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append new tokens and return all."""
        if self.keys_BGSK is not None and self.values_BGSK is not None:
            keys_BGTK = torch.cat((self.keys_BGSK, keys_BGTK), dim=2)
            values_BGTK = torch.cat((self.values_BGSK, values_BGTK), dim=2)
        self.keys_BGSK, self.values_BGSK = keys_BGTK, values_BGTK
        return keys_BGTK, values_BGTK


class Attention(nn.Module):
    """Queries, keys and values come from one fused projection, laid out [all queries; all keys; all values]."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.num_heads, self.num_groups, self.head_dim = (
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
        )
        has_bias = shape.family == "gpt2"
        fused = (self.num_heads + 2 * self.num_groups) * self.head_dim
        self.query_key_value: nn.Module = nn.Linear(shape.hidden_size, fused, bias=has_bias)
        self.output: nn.Module = nn.Linear(self.num_heads * self.head_dim, shape.hidden_size, bias=has_bias)

    def forward(
        self, hidden_BTD: torch.Tensor, context: AttentionContext, cache: KeyValueCache | None = None
    ) -> torch.Tensor:
        """Attend to the past; with a cache, `hidden_BTD` holds only the new tokens."""
        fused = self.query_key_value(hidden_BTD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        batch, _, tokens, _ = fused.shape
        query_BHTK, key_BGTK, value_BGTK = fused.split((self.num_heads, self.num_groups, self.num_groups), dim=1)
        if context.rotation is not None:
            query_BHTK, key_BGTK = rotate(query_BHTK, context.rotation), rotate(key_BGTK, context.rotation)
        is_causal = context.mask_B1TT is None
        if cache is not None:
            key_BGTK, value_BGTK = cache.extend(key_BGTK, value_BGTK)
            is_causal = is_causal and key_BGTK.shape[2] == tokens  # a single new token sees everything
        attended_BHTK = F.scaled_dot_product_attention(
            query_BHTK,
            key_BGTK,
            value_BGTK,
            attn_mask=context.mask_B1TT,
            is_causal=is_causal,
            enable_gqa=self.num_groups != self.num_heads,
        )
        output_BTD: torch.Tensor = self.output(attended_BHTK.transpose(1, 2).reshape(batch, tokens, -1))
        return output_BTD


def build_document_mask(document_ids_BT: torch.Tensor) -> torch.Tensor:
    """True where a token may see another: not later, and of the same document. [B, 1, T, T]."""
    same_BTT = document_ids_BT.unsqueeze(2) == document_ids_BT.unsqueeze(1)
    return same_BTT.tril().unsqueeze(1)
