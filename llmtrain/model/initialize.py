"""Initial weights, the same on every device and layout: each parameter draws from a generator of its own."""

import hashlib
import math

import torch
from torch import nn

from llmtrain.model.gpt import GPT
from llmtrain.plan.model_shape import ModelShape

_RESIDUAL_PROJECTIONS = ("attention.output.weight", "feed_forward.down.weight")


@torch.no_grad()
def initialize_weights(model: GPT, seed: int) -> None:
    """Normal(0, initializer_range) for matrices, 0 for biases, 1 for norms.

    Projections into the residual stream get less, and rows that pad the vocabulary are 0.

    Source:
        Radford et al. 2019, section 2.3: residual projections are scaled by 1/sqrt(number of residual layers).
    """
    for name, parameter in model.named_parameters():
        parameter.copy_(make_initial_weight(name, parameter.shape, model.shape, seed))


def make_initial_weight(name: str, size: torch.Size, shape: ModelShape, seed: int) -> torch.Tensor:
    """The initial value of one parameter, float32 on the host.

    Args:
        name: canonical name.
        size: full size of the parameter.
        shape: of the model.
        seed: `run.seed`.
    """
    if len(size) == 1:
        return torch.zeros(size) if name.endswith("bias") else torch.ones(size)
    key = hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8]
    generator = torch.Generator().manual_seed(int.from_bytes(key, "little"))
    std = shape.initializer_range
    if name.endswith(_RESIDUAL_PROJECTIONS):
        std /= math.sqrt(2 * shape.num_layers)
    weight = torch.empty(size)
    nn.init.normal_(weight, std=std, generator=generator)
    if name in ("embedding.token.weight", "head.weight"):
        weight[shape.vocab_size :] = 0.0
    return weight
