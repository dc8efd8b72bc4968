"""Command `cluster measure`: this machine as a file for `llmtrain plan --cluster`.

Under torchrun, deepspeed or srun the ranks that are there take part; otherwise ranks are started here. In: a number of
ranks, a folder that checkpoints would go to. Out: a YAML file with what was measured, and how, as comments.
"""

import dataclasses
import json
import shlex
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtrain.config.cluster import (
    ClusterConfig,
    CostConfig,
    DeviceConfig,
    EfficiencyConfig,
    LinkConfig,
    ReliabilityConfig,
)
from llmtrain.config.cluster_file import render_cluster, write_cluster
from llmtrain.errors import ConfigError, ParallelError
from llmtrain.plan.collectives import infer_link
from llmtrain.process.launch import run_ranks_here
from llmtrain.process.world import World

if TYPE_CHECKING:
    from llmtrain.tracking.machine_speed import MachineSpeed, Spread, SumSeconds

TIMEOUT_SECONDS = 300
_COMMENT_WIDTH = 116
ASSUMED_WATTS = {"cpu": 15.0, "cuda": 700.0}
"""Of a core with its share of the host, and of a large GPU."""


def measure_cluster(world: World, num_ranks: int, output: Path, folder: Path, name: str | None) -> bool:
    """Measure with the ranks of a launcher, or with `num_ranks` that are started here, and write the file.

    Args:
        world: of a launcher, or one process.
        num_ranks: to start where no launcher did.
        output: YAML file to write.
        folder: where checkpoints would go.
        name: of the cluster; None = by its device.

    Returns:
        Whether this process wrote the file: the first rank does.

    Raises:
        ConfigError: there is no such folder, or the file cannot be written.
        ParallelError: a rank failed.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"command line: --folder {folder}: no such folder. Give the one that checkpoints would go to."
        )
    if world.world_size > 1:
        speed = measure_as_rank(world, folder)
        if not world.is_first:
            return False
        command = f"torchrun --nnodes {speed.nodes} --nproc-per-node {speed.ranks_per_node} -m llmtrain cluster measure"
    else:
        speed = _launch(num_ranks, folder)
        command = f"llmtrain cluster measure --nproc {num_ranks}"
    if name is not None:
        command += f" --name {shlex.quote(name)}"
    write_cluster(describe_machine(speed, f"{command} --output {output}", name), output, "--output")
    return True


def measure_as_rank(world: World, folder: Path) -> "MachineSpeed":
    """Measure as one of the ranks."""
    from llmtrain.parallel.start import start_distributed, stop_distributed
    from llmtrain.tracking.machine_speed import measure_machine

    device = start_distributed(world, TIMEOUT_SECONDS)
    try:
        return measure_machine(device, world, folder)
    finally:
        stop_distributed()


def measure_into_file(path: Path, world: World, folder: Path) -> None:
    """As one of the ranks that `measure_cluster` started: the first one writes the figures."""
    speed = measure_as_rank(world, folder)
    if world.is_first:
        path.write_text(json.dumps(dataclasses.asdict(speed)))


def _launch(num_ranks: int, folder: Path) -> "MachineSpeed":
    with tempfile.TemporaryDirectory() as own:
        path = Path(own) / "speed.json"
        arguments = ["cluster", "measure", "--figures", str(path), "--folder", str(folder)]
        code = run_ranks_here(arguments, num_ranks, path.parent / "logs")
        if code:
            raise ParallelError(f"cluster measure: {num_ranks} ranks ended with code {code}, see above.")
        return read_speed(json.loads(path.read_text()))


def read_speed(values: dict[str, Any]) -> "MachineSpeed":
    """`MachineSpeed` from its JSON."""
    from llmtrain.tracking.machine_speed import MachineSpeed, Spread, SumSeconds

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        inner = {key: read(part) for key, part in value.items()}
        return SumSeconds(**inner) if "ranks" in inner else Spread(**inner)

    return MachineSpeed(**{key: read(value) for key, value in values.items()})


def describe_machine(speed: "MachineSpeed", command: str, name: str | None = None) -> str:
    """The YAML file of a measured machine.

    Args:
        speed: what was measured.
        command: that measured it.
        name: of the cluster; None = by its device.
    """
    is_cpu = speed.device_type == "cpu"
    memory_rate = speed.memory_bytes_per_second
    peak = speed.float32_flops if speed.attention_format == "float32" else speed.bfloat16_flops
    link, network = _describe_links(speed)
    cluster = ClusterConfig(
        name=name or f"{speed.nodes} x {speed.ranks_per_node} {'ranks on ' if is_cpu else ''}{speed.device_name}",
        nodes=speed.nodes,
        devices_per_node=speed.ranks_per_node,
        device=DeviceConfig(
            name=f"{_count_threads(speed)} of {speed.device_name}" if is_cpu else speed.device_name,
            kind="cpu" if is_cpu else "gpu",
            torch_name="cpu" if is_cpu else speed.device_name,
            memory_gib=speed.memory_bytes / 2**30,
            bfloat16_teraflops=speed.bfloat16_flops.median / 1e12,
            float32_teraflops=speed.float32_flops.median / 1e12,
            memory_gb_per_second=memory_rate.median / 1e9,
        ),
        link=link,
        network=network,
        efficiency=EfficiencyConfig(
            matrix_products=1.0,
            fused_attention=min(1.0, speed.attention_flops.median / peak.median),
            memory=1.0,
            links=1.0,
            overlap=0.0 if is_cpu else EfficiencyConfig().overlap,
        ),
        reliability=ReliabilityConfig(storage_gb_per_second=speed.storage_bytes_per_second.median / 1e9),
        cost=CostConfig(watts_per_device=ASSUMED_WATTS[speed.device_type]),
    )
    return render_cluster(cluster, _describe_method(speed, command), _list_notes(speed))


def _describe_links(speed: "MachineSpeed") -> tuple[LinkConfig, LinkConfig]:
    def infer(sums: "SumSeconds", is_inside: bool) -> LinkConfig:
        return infer_link(sums.small.median, sums.large.median, sums.bytes, sums.ranks, is_inside)

    memory = LinkConfig(gb_per_second=speed.memory_bytes_per_second.median / 1e9, latency_microseconds=0.0)
    link = memory if speed.link is None else infer(speed.link, is_inside=True)
    return link, link if speed.network is None else infer(speed.network, is_inside=False)


def _describe_method(speed: "MachineSpeed", command: str) -> list[str]:
    from llmtrain.tracking.machine_speed import ROUNDS

    ranks = speed.nodes * speed.ranks_per_node
    who = f"{ranks} ranks at once, each of {_count_threads(speed)}" if ranks > 1 else _count_threads(speed)
    method = (
        f"Measured by {who}. Each number is the best of a round on the slowest rank, the median of {ROUNDS} rounds; "
        "the least and the most stand behind it. Shares of `efficiency` are 1 where programs measured what they are "
        "shares of; `llmtrain plan --calibrate RUN` fits them to finished runs."
    )
    return [command, "", *textwrap.wrap(method, _COMMENT_WIDTH)]


def _list_notes(speed: "MachineSpeed") -> dict[str, str]:
    memory_rate = speed.memory_bytes_per_second
    memory = "of the GPU" if speed.device_type == "cuda" else "of the host or the container, over its ranks"
    notes = {
        "nodes": "that took part; raise it to plan for more like these",
        "device.memory_gib": memory,
        "device.bfloat16_teraflops": f"square products; {_range(speed.bfloat16_flops, 1e12)}",
        "device.float32_teraflops": f"the same; {_range(speed.float32_flops, 1e12)}",
        "device.memory_gb_per_second": f"sums of two tensors, each a new one; {_range(memory_rate, 1e9)}",
        "efficiency.matrix_products": "of what was measured above",
        "efficiency.fused_attention": "causal attention, forward and backward, over the peak in "
        f"{speed.attention_format}; {_range(speed.attention_flops, 1e12)} TFLOP/s",
        "efficiency.overlap": "one thread does both" if speed.device_type == "cpu" else "not measured: that of A100s",
        "reliability.storage_gb_per_second": f"files of a checkpoint, hashed and flushed, all ranks together; "
        f"{_range(speed.storage_bytes_per_second, 1e9)}",
        "reliability.failures_per_device_hour": "not measured: Llama 3's 419 in 54 days on 16,384 devices",
        "reliability.restart_seconds": "not measured",
        "cost": "not measured: put your own numbers here",
    }
    return notes | _list_link_notes(speed)


def _list_link_notes(speed: "MachineSpeed") -> dict[str, str]:
    notes = {}
    missing = {
        "link": "not measured: one rank; set to its memory",
        "network": "not measured: one machine; set to its link",
    }
    for name, sums in (("link", speed.link), ("network", speed.network)):
        if sums is None:
            notes[name] = missing[name]
            continue
        backend = "gloo" if speed.device_type == "cpu" else "nccl"
        notes[name] = f"sums over {sums.ranks} ranks, {backend}"
        notes[f"{name}.gb_per_second"] = f"a sum of {sums.bytes >> 20} MiB takes {_range(sums.large, 1e-3)} ms"
        notes[f"{name}.latency_microseconds"] = f"a sum of one element takes {_range(sums.small, 1e-6)} microseconds"
    return notes


def _count_threads(speed: "MachineSpeed") -> str:
    return f"{speed.threads} thread{'s' if speed.threads > 1 else ''}"


def _range(spread: "Spread", unit: float) -> str:
    return f"{spread.least / unit:.3g} to {spread.most / unit:.3g}"
