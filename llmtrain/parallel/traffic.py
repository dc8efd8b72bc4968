"""What a rank really sends: every collective of torch and of DeepSpeed, counted as it passes torch's dispatcher.

    counter = TrafficCounter(layout)
    with counter:
        engine.train_step(...)
    counter.traffic          # bytes that this rank sent, by group

All of torch.distributed, and DeepSpeed's calls, which end there, become operators `c10d::...`; a dispatch mode sees
them before they run and changes nothing. The backward pass is seen, too: on a CPU it runs in the thread that called it,
and the threads that autograd keeps for GPUs take over the modes of that thread (ATen's `ThreadLocalState`, in which
`torch_dispatch_mode_state_` is a field). Two things are not: other threads of the program (a checkpoint being written),
and DeepSpeed's shared-memory collective for CPUs, which `parallel.start` switches off.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llmtrain.parallel.layout import Layout
from llmtrain.plan.traffic import Traffic, all_reduce_bytes, gather_bytes

Sent = Callable[[float, int], float]
"""Bytes of the whole and ranks of the group -> bytes that a rank sends."""

# Operator: the argument that holds the whole, and what is sent of it. `gather_` and `scatter_` move each rank's part
# once, `send` all of it.
_FORMULAS: dict[str, tuple[int, Sent]] = {
    "allreduce_": (0, all_reduce_bytes),
    "allreduce_coalesced_": (0, all_reduce_bytes),
    "reduce_": (0, gather_bytes),
    "broadcast_": (0, gather_bytes),
    "_allgather_base_": (0, gather_bytes),
    "allgather_": (0, gather_bytes),
    "allgather_coalesced_": (0, gather_bytes),
    "allgather_into_tensor_coalesced_": (0, gather_bytes),
    "_reduce_scatter_base_": (1, gather_bytes),
    "reduce_scatter_": (1, gather_bytes),
    "reduce_scatter_tensor_coalesced_": (1, gather_bytes),
    "alltoall_": (1, gather_bytes),
    "alltoall_base_": (1, gather_bytes),
    "gather_": (1, gather_bytes),
    "scatter_": (0, gather_bytes),
    "send": (0, lambda size, ranks: size),
}
_SENDING_NOTHING = {"recv_", "recv_any_source_", "barrier", "monitored_barrier_", "check_for_nan"}


class TrafficCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what this rank sends inside `with counter:`."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._layout = layout
        self._sent = {"data": 0.0, "tensor": 0.0, "pipeline": 0.0}
        self.unknown: set[str] = set()
        """Operators that were called and are not counted: another version of torch has others."""

    @property
    def traffic(self) -> Traffic:
        """What was sent so far."""
        return Traffic(**self._sent)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(function, torch._ops.OpOverload) and function.namespace == "c10d":
            self._count(function, args)
        return function(*args, **(kwargs or {}))

    def _count(self, function: torch._ops.OpOverload, args: Sequence[Any]) -> None:
        name = function._opname
        if name in _SENDING_NOTHING:
            return
        if name not in _FORMULAS:
            self.unknown.add(name)
            return
        place, formula = _FORMULAS[name]
        values = dict(zip((argument.name for argument in function._schema.arguments), args, strict=False))
        group = dist.ProcessGroup.unbox(values["process_group"])
        members = dist.get_process_group_ranks(group)
        if name == "send":
            members = [self._layout.rank, members[values["dst"]]]
        axis = find_axis(members, self._layout)
        if axis is not None:
            self._sent[axis] += formula(_count_bytes(args[place]), len(members))


def find_axis(members: Iterable[int], layout: Layout) -> str | None:
    """The axis along which ranks lie apart, the farthest if there are several; None for one rank alone."""
    tensor, data = layout.tensor_parallel_size, layout.data_parallel_size
    ranks = set(members)
    for axis, coordinates in (
        ("pipeline", {rank // (tensor * data) for rank in ranks}),
        ("data", {rank // tensor % data for rank in ranks}),
        ("tensor", {rank % tensor for rank in ranks}),
    ):
        if len(coordinates) > 1:
            return axis
    return None


def _count_bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tree_leaves(tensors))
