"""The feed-forward layer of each family."""

import torch
from torch import nn
from torch.nn import functional as F

from llmtrain.plan.model_shape import ModelShape


class GeluFeedForward(nn.Module):
    """down(gelu(up(x))), with the tanh form of GELU that GPT-2 uses."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.hidden_size, shape.intermediate_size)
        self.down = nn.Linear(shape.intermediate_size, shape.hidden_size)

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Apply to each token."""
        output_BTD: torch.Tensor = self.down(F.gelu(self.up(hidden_BTD), approximate="tanh"))
        return output_BTD


class SwiGluFeedForward(nn.Module):
    """down(silu(gate(x)) * up(x)); gate and up are one projection, laid out [gate; up].

    Source:
        Shazeer 2020, "GLU Variants Improve Transformer", equation 6.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_up = nn.Linear(shape.hidden_size, 2 * shape.intermediate_size, bias=False)
        self.down = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Apply to each token."""
        gate, up = self.gate_up(hidden_BTD).chunk(2, dim=-1)
        output_BTD: torch.Tensor = self.down(F.silu(gate) * up)
        return output_BTD


def build_feed_forward(shape: ModelShape) -> nn.Module:
    """The feed-forward layer of a family."""
    return GeluFeedForward(shape) if shape.family == "gpt2" else SwiGluFeedForward(shape)
