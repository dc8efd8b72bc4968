"""Join the ranks: pick the device and the backend, start torch.distributed and DeepSpeed. No compiler is needed.

On several CPU ranks DeepSpeed would compile a shared-memory collective at start (minutes, and a build that is killed
leaves a lock on which every later start hangs). gloo does the same work, so that build is switched off.
"""

import ipaddress
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psutil
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore, Store, TCPStore
from torch.distributed import distributed_c10d

from llmtrain.errors import HangError, LostRankError, ParallelError
from llmtrain.process.world import World

# Reserved for documentation (RFC 5737): shows by which interface packets leave, nothing is ever sent there.
_SOMEWHERE = "192.0.2.1"
_LAST_WORDS_SECONDS = 2.0
_LOST_RANK = re.compile(r"Connection (closed|reset) by (remote )?peer")
_SHOWN_RANKS = 8


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


def start_distributed(world: World, timeout_seconds: float, meeting_seconds: float | None = None) -> torch.device:
    """Join the process group of all ranks and hand it to DeepSpeed.

    Args:
        world: this process.
        timeout_seconds: a collective that takes longer raises.
        meeting_seconds: how long to wait for the other ranks; None = `timeout_seconds`.

    Returns:
        The device of this rank.

    Raises:
        ParallelError: the ranks did not meet in time, the port is taken, or there are more ranks than GPUs.
    """
    device = pick_device(world)
    interface = find_interface(world)
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    try:
        _join(world, backend, timedelta(seconds=timeout_seconds), timedelta(seconds=meeting_seconds or timeout_seconds))
    except (RuntimeError, ValueError) as error:
        raise ParallelError(_explain_meeting(world, meeting_seconds or timeout_seconds, str(error))) from error
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


def find_interface(world: World) -> str | None:
    """The network interface on which this process reaches the others: gloo would go by the name of the machine.

    Many machines resolve their own name to a loopback address, which gloo would then tell the other machines.

    Returns:
        The name of the interface; None leaves the choice to gloo (one process, or nothing is known).
    """
    if world.world_size == 1:
        return None
    try:
        master = ipaddress.ip_address(socket.gethostbyname(world.master_address))
    except OSError:
        return None  # an address only IPv6 knows, or none at all: joining will say so
    is_spelled_as_number = world.master_address[0].isdigit() or world.master_address == "localhost"
    has_other_machines = world.world_size > world.local_world_size
    if master.is_loopback and has_other_machines and not is_spelled_as_number:
        return _find_interface_towards(_SOMEWHERE)
    return _find_interface_towards(str(master))


def _find_interface_towards(address: str) -> str | None:
    """The interface whose address a packet to `address` would carry. Nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            own = probe.getsockname()[0]
    except OSError:
        return None
    if ipaddress.ip_address(own).is_loopback:
        return "lo"
    by_address = {entry.address: name for name, entries in psutil.net_if_addrs().items() for entry in entries}
    return by_address.get(own)


def _join(world: World, backend: str, timeout: timedelta, meeting: timedelta) -> None:
    if world.world_size == 1:
        store: Store = HashStore()
    else:
        store = _meet(world, meeting)
        store.set_timeout(timeout)
    dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.world_size, timeout=timeout)


def _meet(world: World, meeting: timedelta) -> Store:
    """Wait until every rank has come to the store of the first one, or of the torchrun that started it.

    Raises:
        ParallelError: some did not come.
    """
    is_hosted_by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    hosts_store = world.is_first and not is_hosted_by_torchrun
    server = TCPStore(
        world.master_address,
        world.master_port,
        is_master=hosts_store,
        timeout=meeting,
        wait_for_workers=False,
        multi_tenant=True,
    )
    # torchrun keeps its store when it starts ranks again; what the former ones left in it must not be met.
    store = PrefixStore(f"llmtrain/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", server)
    if store.add(f"here/{world.rank}", 1) > 1:
        raise ParallelError(
            f"rank {world.rank}: came to {world.master_address}:{world.master_port} twice. Give every process a rank "
            "of its own, and every run a port of its own."
        )
    if store.add("arrived", 1) == world.world_size:
        store.set("complete", "")
    try:
        store.wait(["complete"], meeting)
    except RuntimeError as error:
        missing = [rank for rank in range(world.world_size) if not store.check([f"here/{rank}"])]
        if hosts_store:
            time.sleep(_LAST_WORDS_SECONDS)  # the others ask this store who is missing
        shown = ", ".join(map(str, missing[:_SHOWN_RANKS])) + (" ..." if len(missing) > _SHOWN_RANKS else "")
        raise ParallelError(
            f"rank {world.rank}: {world.world_size - len(missing)} of {world.world_size} ranks came to "
            f"{world.master_address}:{world.master_port} within {meeting.total_seconds():.0f} s; missing: {shown}. "
            "Check that every node was started, with the same number of nodes and the same MASTER_ADDR and MASTER_PORT."
        ) from error
    return store


def _explain_meeting(world: World, seconds: float, error: str) -> str:
    place = f"{world.master_address}:{world.master_port}"
    if "EADDRINUSE" in error:
        return (
            f"rank {world.rank}: port {world.master_port} is taken on this machine, so the ranks cannot meet here. "
            "Set MASTER_PORT to a free port, or end what listens there."
        )
    if "client socket" in error:
        return (
            f"rank {world.rank}: nobody answered at {place} within {seconds:.0f} s. Check that rank 0 runs, that "
            "MASTER_ADDR is its address, and that this machine reaches it."
        )
    return (
        f"rank {world.rank}: could not meet {world.world_size} ranks at {place}: {error}. Check that every node runs "
        "and reaches that address, and that nothing else listens there."
    )


def limit_waiting(timeout_seconds: float) -> None:
    """Give every process group of this rank the time limit of the first one; torch and DeepSpeed make them with 30 min.

    Args:
        timeout_seconds: a collective that takes longer raises.
    """
    for group in distributed_c10d._world.pg_map:
        if isinstance(group, dist.ProcessGroup):
            distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_seconds), group)


@contextmanager
def explain_timeout(world: World, timeout_seconds: float) -> Iterator[None]:
    """Say what a collective that took too long, or lost another rank, means.

    Raises:
        HangError: in place of the error of torch when time was up.
        LostRankError: in its place when another rank is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if _LOST_RANK.search(str(error)):
            raise LostRankError(
                f"rank {world.rank} on {socket.gethostname()}: lost another rank, which ended or was killed; its own "
                "message says why. Start again: the run resumes."
            ) from error
        if "Timed out waiting" not in str(error):
            raise
        raise HangError(
            f"rank {world.rank} on {socket.gethostname()}: waited {timeout_seconds:.0f} s for another rank "
            "(parallel.communication_timeout_seconds). One is stuck or stopped: RUN/logs/hang-rank*.txt, if there are "
            "any, hold stacks. Start again: the run resumes."
        ) from error


def stop_distributed() -> None:
    """Leave the process group; nothing happens when there is none."""
    if dist.is_initialized():
        dist.destroy_process_group()
