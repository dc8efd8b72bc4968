"""One transformer block, pre-norm: attention, then feed-forward, each added to the residual stream."""

import torch
from torch import nn

from llmtrain.model.attention import Attention, AttentionContext, KeyValueCache
from llmtrain.model.feed_forward import build_feed_forward
from llmtrain.model.norms import build_norm
from llmtrain.plan.model_shape import ModelShape


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.attention_norm = build_norm(shape)
        self.attention = Attention(shape)
        self.feed_forward_norm = build_norm(shape)
        self.feed_forward = build_feed_forward(shape)

    def forward(
        self, hidden_BTD: torch.Tensor, context: AttentionContext, cache: KeyValueCache | None = None
    ) -> torch.Tensor:
        """Residual stream in, residual stream out."""
        hidden_BTD = hidden_BTD + self.attention(self.attention_norm(hidden_BTD), context, cache)
        output_BTD: torch.Tensor = hidden_BTD + self.feed_forward(self.feed_forward_norm(hidden_BTD))
        return output_BTD
