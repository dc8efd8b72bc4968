"""AdamW and its two parameter groups."""

import torch
from torch import nn

from llmtrain.config.optimizer import AdamWConfig


def build_parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split parameters: matrices and embeddings decay, vectors (norms, biases) do not.

    Args:
        model: the network; a parameter sharded by ZeRO-3 is judged by its full shape.
        weight_decay: of the first group.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in model.parameters():
        shape = getattr(parameter, "ds_shape", parameter.shape)
        (decayed if len(shape) >= 2 else kept).append(parameter)
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_adamw(config: AdamWConfig, model: nn.Module) -> torch.optim.AdamW:
    """AdamW with torch's fused kernel. DeepSpeed's own Adam would be compiled at start.

    Source:
        Loshchilov and Hutter 2019, algorithm 2.
    """
    return torch.optim.AdamW(
        build_parameter_groups(model, config.weight_decay),
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        fused=True,
    )
