"""Memory of this process."""

import gc
import resource
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def measure_peak_memory_gib(device: torch.device) -> float:
    """Peak so far in GiB: allocated on the GPU, or resident on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class HostTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows how many bytes tensors hold on the host inside `with`: what a GPU's allocator would tell by itself.

    Counted are the storages that were there before and those that operators return. What operators allocate for
    themselves meanwhile, and libraries, are not.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._living: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.held_bytes, self.peak_bytes = 0, 0

    def __enter__(self) -> "HostTensors":
        for thing in gc.get_objects():
            if issubclass(type(thing), torch.Tensor):  # isinstance would ask lazily loaded modules for their class
                self._add(thing)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for thing in tree_leaves(result):
            if isinstance(thing, torch.Tensor):
                self._add(thing)
        return result

    def _add(self, tensor: torch.Tensor) -> None:
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            return
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):  # a tensor that only stands for others
            return
        key, size = storage._cdata, storage.nbytes()
        if key in self._living or not size:
            return

        def forget(_: "weakref.ref[torch.UntypedStorage]") -> None:
            del self._living[key]
            self.held_bytes -= size

        self._living[key] = weakref.ref(storage, forget)
        self.held_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)
