"""What this machine does at most: matrix products, attention, memory, sums over ranks, files.

All ranks of the process group measure at once, as they compute at once in training. The figure of a round is the best
that a rank saw in it, so that other programs disturb little, on the slowest rank.

In: a device and a process group. Out: `MachineSpeed`, the same on every rank.
"""

import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from torch.nn import functional as F

from llmtrain.checkpoint.tensor_file import write_tensor_file
from llmtrain.errors import MachineError, ParallelError
from llmtrain.process.world import World
from llmtrain.tracking.throughput import measure_matmul_peak

ROUNDS = 5
_PRODUCT_SECONDS = 0.2
_TERM_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}
_ATTENTION_SHAPES = {"cpu": (8, 4, 256, 32), "cuda": (8, 16, 2048, 128)}
"""Batch, heads, tokens, dimensions of a head: what a small and what a large model has."""
_SUM_BYTES = {"cpu": 16 << 20, "cuda": 256 << 20}
_SMALL_SUMS, _LARGE_SUMS, _ATTENTIONS, _ADDITIONS = 50, 10, 20, 20
_FILE_BYTES = 128 << 20
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Spread:
    """One figure over several rounds."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class SumSeconds:
    """Seconds of a sum over some ranks."""

    ranks: int
    bytes: int
    small: Spread
    """Of one element: nothing but latency."""
    large: Spread
    """Of `bytes` on each rank."""


@dataclass(frozen=True)
class MachineSpeed:
    """Figures of one rank while all others work too; storage is that of all together."""

    device_name: str
    device_type: str
    nodes: int
    ranks_per_node: int
    threads: int
    memory_bytes: int
    bfloat16_flops: Spread
    float32_flops: Spread
    attention_flops: Spread
    """Of forward and backward of causal attention, in the format that `attention_format` names."""
    attention_format: str
    memory_bytes_per_second: Spread
    link: SumSeconds | None
    """Within a machine; None = one rank."""
    network: SumSeconds | None
    """Between machines; None = one machine."""
    storage_bytes_per_second: Spread


def measure_machine(device: torch.device, world: World, folder: Path) -> MachineSpeed:
    """Measure everything; every rank of the process group calls it.

    Args:
        device: of this rank.
        world: this process; machines hold equally many ranks.
        folder: where checkpoints would go.

    Raises:
        MachineError: nothing can be written there.
        ParallelError: machines have different numbers of ranks.
    """
    nodes, left_over = divmod(world.world_size, world.local_world_size)
    if left_over:
        raise ParallelError(
            f"cluster measure: {world.world_size} ranks are no multiple of the {world.local_world_size} on this "
            "machine. Start equally many on each."
        )
    inside, between = _make_groups(world, nodes)
    storage = _measure_storage(device, world, folder)  # first: a folder that cannot be written is told at once
    attention_format = torch.bfloat16 if device.type == "cuda" else torch.float32
    return MachineSpeed(
        device_name=_name_device(device),
        device_type=device.type,
        nodes=nodes,
        ranks_per_node=world.local_world_size,
        threads=torch.get_num_threads(),
        memory_bytes=find_memory_bytes(device, world.local_world_size),
        bfloat16_flops=_measure(device, lambda: measure_matmul_peak(device, torch.bfloat16, _PRODUCT_SECONDS)),
        float32_flops=_measure(device, lambda: measure_matmul_peak(device, torch.float32, _PRODUCT_SECONDS)),
        attention_flops=_measure(device, lambda: _measure_attention(device, attention_format)),
        attention_format=str(attention_format).removeprefix("torch."),
        memory_bytes_per_second=_measure(device, lambda: _measure_memory(device)),
        link=_measure_sums(device, inside, world.local_world_size),
        network=_measure_sums(device, between, nodes),
        storage_bytes_per_second=storage,
    )


def find_memory_bytes(device: torch.device, ranks: int) -> int:
    """Memory of a GPU, or a rank's share of what the host, or the container's limit, has.

    Args:
        device: of this rank.
        ranks: on this machine.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return read_memory_limit([Path(path) for path in _CGROUP_LIMITS]) // ranks


def read_memory_limit(limits: list[Path]) -> int:
    """Bytes of the host's memory, or of the least limit that one of these files of a control group holds."""
    texts = [path.read_text().strip() for path in limits if path.is_file()]
    return min([int(psutil.virtual_memory().total), *(int(text) for text in texts if text.isdecimal())])


def _measure(device: torch.device, measure_rate: Callable[[], float]) -> Spread:
    """A rate over the rounds, each that of the slowest rank."""
    rates = []
    for _ in range(ROUNDS):
        dist.barrier()
        rate = torch.tensor(measure_rate(), dtype=torch.float64, device=device)
        dist.all_reduce(rate, dist.ReduceOp.MIN)
        rates.append(float(rate))
    return Spread(sorted(rates)[ROUNDS // 2], min(rates), max(rates))


def _invert(rates: Spread) -> Spread:
    return Spread(1 / rates.median, 1 / rates.most, 1 / rates.least)


def _time(device: torch.device, function: Callable[[], object], count: int) -> float:
    """Seconds of the fastest of `count` calls, after one that warms up."""
    function()
    seconds = []
    for _ in range(count):
        _wait_for(device)
        started = time.perf_counter()
        function()
        _wait_for(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _measure_memory(device: torch.device) -> float:
    """Bytes per second of sums that make a new tensor, as most operations of a model do."""
    left, right = torch.rand(2, _TERM_BYTES[device.type] // 4, device=device)
    return 3.0 * _TERM_BYTES[device.type] / _time(device, lambda: left + right, _ADDITIONS)


def _measure_attention(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s as the plan counts them: half of two products forward, two and a half times as many backward."""
    shape = _ATTENTION_SHAPES[device.type]
    query, key, value = (torch.rand(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
    upstream = torch.rand(shape, device=device, dtype=dtype)

    def run() -> None:
        output = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        torch.autograd.grad(output, (query, key, value), upstream)

    batch, heads, tokens, head_dim = shape
    forward = 4.0 * batch * heads * tokens * tokens / 2 * head_dim
    return 3.5 * forward / _time(device, run, _ATTENTIONS)


def _make_groups(world: World, nodes: int) -> tuple["dist.ProcessGroup | None", "dist.ProcessGroup | None"]:
    """This rank's group on its machine, and the one with a rank of each machine; None where it would be alone."""
    size, inside, between = world.local_world_size, None, None
    for node in range(nodes):
        group = dist.new_group([node * size + place for place in range(size)]) if size > 1 else None
        inside = group if node == world.rank // size else inside
    for place in range(size):
        group = dist.new_group([node * size + place for node in range(nodes)]) if nodes > 1 else None
        between = group if place == world.rank % size else between
    return inside, between


def _measure_sums(device: torch.device, group: "dist.ProcessGroup | None", ranks: int) -> SumSeconds | None:
    if group is None:
        return None

    def measure(elements: int, count: int) -> Spread:
        tensor = torch.zeros(elements, device=device)
        return _invert(_measure(device, lambda: 1 / _time(device, lambda: dist.all_reduce(tensor, group=group), count)))

    size = _SUM_BYTES[device.type]
    return SumSeconds(ranks, size, measure(1, _SMALL_SUMS), measure(size // 4, _LARGE_SUMS))


def _measure_storage(device: torch.device, world: World, folder: Path) -> Spread:
    """Bytes per second that all ranks together write as files of a checkpoint, flushed to the disk."""
    tensors = {"weight": torch.rand(_FILE_BYTES // 4)}
    try:
        with tempfile.TemporaryDirectory(prefix="llmtrain-measure-", dir=folder) as own:
            path = Path(own) / "tensors"
            rates = _measure(device, lambda: _FILE_BYTES / _time(device, lambda: write_tensor_file(path, tensors), 1))
    except OSError as error:
        raise MachineError(
            f"{folder}: files of {_FILE_BYTES >> 20} MiB for each rank cannot be written: {error.strerror}. Give "
            "--folder a folder with free space that can be written."
        ) from error
    return Spread(*(world.world_size * rate for rate in (rates.median, rates.least, rates.most)))


def _name_device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
