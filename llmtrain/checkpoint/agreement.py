"""Ranks telling each other how it went, so that all go on or all stop.

In: a value or a problem of this rank. Out: those of all ranks. Without a process group a single rank is assumed, so
that the same code serves tools that run alone. `group` is another group of all ranks in the same order: what a
background thread says must not meet what training says, so it has a group of its own.
"""

from typing import TypeVar, cast

import torch.distributed as dist

from llmtrain.errors import CheckpointError

T = TypeVar("T")


def own_rank() -> int:
    """Rank of this process; 0 when it runs alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather_from_all(value: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """Every rank's value, in rank order, on every rank."""
    if not dist.is_initialized():
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=group)
    return cast(list[T], values)


def gather_to_first(value: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """Every rank's value, in rank order, on rank 0; an empty list elsewhere."""
    if not dist.is_initialized():
        return [value]
    values: list[T | None] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, values, dst=0, group=group)
    return cast(list[T], values or [])


def raise_together(problem: str | None, group: dist.ProcessGroup | None = None) -> None:
    """Stop all ranks when one has a problem.

    Args:
        problem: what went wrong on this rank, or None.
        group: of all ranks; None = the default one.

    Raises:
        CheckpointError: on every rank, with the problems of all ranks; equal ones once.
    """
    problems = dict.fromkeys(found for found in gather_from_all(problem, group) if found is not None)
    if problems:
        raise CheckpointError("\n".join(problems))
