"""Join the ranks: pick the device and the backend, start torch.distributed and DeepSpeed. No compiler is needed.

On several CPU ranks DeepSpeed would compile a shared-memory collective at start (minutes, and a build that is killed
leaves a lock on which every later start hangs). gloo does the same work, so that build is switched off.
"""

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from llmtrain.errors import ParallelError
from llmtrain.process.world import World

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def pick_device(world: World) -> torch.device:
    """The GPU with this process's local rank, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    num_gpus = torch.cuda.device_count()
    if world.local_rank >= num_gpus:
        raise ParallelError(
            f"rank {world.rank}: local rank {world.local_rank} has no GPU, this machine has {num_gpus}. "
            f"Start at most {num_gpus} ranks on it."
        )
    device = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(device)
    return device


def start_distributed(world: World, timeout_seconds: float) -> torch.device:
    """Join the process group of all ranks and hand it to DeepSpeed.

    Args:
        world: this process.
        timeout_seconds: a collective that takes longer raises.

    Returns:
        The device of this rank.

    Raises:
        ParallelError: the ranks did not meet in time, or there are more ranks than GPUs.
    """
    device = pick_device(world)
    if world.master_address in _LOOPBACK:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    try:
        _join(world, backend, timedelta(seconds=timeout_seconds))
    except (RuntimeError, ValueError) as error:
        raise ParallelError(
            f"rank {world.rank}: could not meet {world.world_size} ranks at {world.master_address}:{world.master_port} "
            f"within {timeout_seconds:.0f} s: {error}. Check that every node runs and reaches that address."
        ) from error
    # DeepSpeed reads it; srun does not set it, and a process alone has no launcher to do so.
    os.environ["LOCAL_RANK"] = str(world.local_rank)
    prepare_deepspeed(device)
    return device


def prepare_deepspeed(device: torch.device) -> None:
    """Hand the process group that exists to DeepSpeed, with the build of its collective switched off."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    import deepspeed  # after DS_ACCELERATOR is set, which its import reads

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=dist.get_backend(), auto_mpi_discovery=False, verbose=False)


def _join(world: World, backend: str, timeout: timedelta) -> None:
    if world.world_size == 1:
        dist.init_process_group(
            backend, store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1, timeout=timeout
        )
        return
    dist.init_process_group(
        backend,
        init_method=f"tcp://{world.master_address}:{world.master_port}",
        rank=world.rank,
        world_size=world.world_size,
        timeout=timeout,
    )


def stop_distributed() -> None:
    """Leave the process group; nothing happens when there is none."""
    if dist.is_initialized():
        dist.destroy_process_group()
