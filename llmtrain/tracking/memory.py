"""Peak memory of this process."""

import resource

import torch


def measure_peak_memory_gib(device: torch.device) -> float:
    """Peak so far in GiB: allocated on the GPU, or resident on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
