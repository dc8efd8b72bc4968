"""LayerNorm (GPT-2 family) and RMSNorm (Llama family)."""

import torch
from torch import nn
from torch.nn import functional as F

from llmtrain.plan.model_shape import ModelShape


class RMSNorm(nn.Module):
    """x / rms(x) * weight.

    Source:
        Zhang and Sennrich 2019, equation 4.
    """

    def __init__(self, hidden_size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.epsilon = epsilon

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension."""
        return F.rms_norm(hidden_BTD, self.weight.shape, self.weight, self.epsilon)


def build_norm(shape: ModelShape) -> nn.Module:
    """The norm of a family."""
    if shape.family == "gpt2":
        return nn.LayerNorm(shape.hidden_size, shape.norm_epsilon)
    return RMSNorm(shape.hidden_size, shape.norm_epsilon)
