"""Gradient norm and clipping over a model that is spread over ranks, where DeepSpeed keeps none (ZeRO-0)."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn

from llmtrain.parallel.placement import get_placement


@torch.no_grad()
def clip_gradients(
    parameters: Iterable[nn.Parameter], max_norm: float, model_parallel_group: dist.ProcessGroup
) -> float:
    """Scale gradients so that their norm over the whole model is at most `max_norm`.

    Args:
        parameters: of this rank, with their placements; copies that another rank speaks for count once.
        max_norm: of the whole model.
        model_parallel_group: ranks that together hold one model.

    Returns:
        The norm before clipping.
    """
    held = [parameter for parameter in parameters if parameter.grad is not None]
    counted = [parameter.grad for parameter in held if get_placement(parameter).is_writer]
    norms = torch.nn.utils.get_total_norm([grad for grad in counted if grad is not None])
    total = norms.double().square().to(held[0].device)
    dist.all_reduce(total, group=model_parallel_group)
    norm = float(total.sqrt())
    torch.nn.utils.clip_grads_with_norm_(held, max_norm, torch.tensor(norm))
    return norm
