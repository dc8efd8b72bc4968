"""Collectives that autograd knows: each is the other's derivative.

    copy_in       forward: nothing                  backward: sum over the group
    sum_out       forward: sum over the group       backward: nothing
    gather_in     forward: gather the sequence      backward: sum, and keep this rank's part of the sequence
    scatter_out   forward: sum, and keep a part     backward: gather the sequence

Shapes: B batch, T tokens of the whole sequence, S tokens of a rank's part of it, D hidden size.

Source:
    Shoeybi et al. 2019, section 3 (the first pair); Korthikanti et al. 2022, section 4.2.1 (the second).
"""

from typing import Any

import torch
import torch.distributed as dist


def sum_over(tensor: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """A new tensor with the sum over the group."""
    total = tensor.contiguous().clone()
    dist.all_reduce(total, group=group)
    return total


def gather_sequence(part_BSD: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Parts of a sequence, one from each rank, put together: [B, T, D]."""
    size = dist.get_world_size(group)
    batch, tokens, *rest = part_BSD.shape
    parts = part_BSD.new_empty(size, batch, tokens, *rest)
    dist.all_gather_into_tensor(parts.flatten(0, 1), part_BSD.contiguous(), group=group)
    return parts.transpose(0, 1).reshape(batch, size * tokens, *rest)


def scatter_sequence(whole_BTD: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The sum over the group of this rank's part of the sequence: [B, S, D]."""
    size = dist.get_world_size(group)
    batch, tokens, *rest = whole_BTD.shape
    parts = whole_BTD.view(batch, size, tokens // size, *rest).transpose(0, 1).contiguous()
    own = whole_BTD.new_empty(batch, tokens // size, *rest)
    dist.reduce_scatter_tensor(own, parts.flatten(0, 1), group=group)
    return own


class _CopyIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.group = group
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        return sum_over(grad_outputs[0], ctx.group), None


class _SumOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        return sum_over(tensor, group)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad_outputs[0], None


class _GatherIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part_BSD: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.group = group
        return gather_sequence(part_BSD, group)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        return scatter_sequence(grad_outputs[0], ctx.group), None


class _ScatterOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole_BTD: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.group = group
        return scatter_sequence(whole_BTD, group)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gather_sequence(grad_outputs[0], ctx.group), None


def copy_in(tensor: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The tensor; its gradient is summed over the group. Also for a weight that ranks apply to different tokens."""
    result: torch.Tensor = _CopyIn.apply(tensor, group)  # type: ignore[no-untyped-call]
    return result


def sum_out(tensor: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The sum over the group; each rank's gradient is the whole one."""
    result: torch.Tensor = _SumOut.apply(tensor, group)  # type: ignore[no-untyped-call]
    return result


def gather_in(part_BSD: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The whole sequence from its parts."""
    result: torch.Tensor = _GatherIn.apply(part_BSD, group)  # type: ignore[no-untyped-call]
    return result


def scatter_out(whole_BTD: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """This rank's part of the sum of sequences."""
    result: torch.Tensor = _ScatterOut.apply(whole_BTD, group)  # type: ignore[no-untyped-call]
    return result
