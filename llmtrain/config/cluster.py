"""A described cluster for `llmtrain plan`: devices, links, storage, power, price, failures. Not part of a run's YAML.

In: the name of a file in configs/clusters or a path, and overrides. Out: `ClusterConfig`.
"""

import difflib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from llmtrain.config.explain import explain_errors
from llmtrain.config.section import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Section
from llmtrain.config.yaml_reader import read_yaml
from llmtrain.errors import ConfigError

logger = logging.getLogger(__name__)

CLUSTER_FOLDER = Path(__file__).parents[2] / "configs" / "clusters"


PositiveFraction = Annotated[float, Field(gt=0, le=1)]


class DeviceConfig(Section):
    """One accelerator, or one share of a host's processor that a rank runs on."""

    name: str
    """What it is called."""
    kind: Literal["gpu", "cpu"] = "gpu"
    """What torch calls `cuda`, or a processor."""
    torch_name: str | None = None
    """What torch calls such a device (`cpu`: a processor): runs on one are planned with this cluster."""
    memory_gib: PositiveFloat
    """Memory that a rank may use, GiB."""
    bfloat16_teraflops: PositiveFloat
    """Peak of dense matrix products in bfloat16, 1e12 FLOP/s."""
    float32_teraflops: PositiveFloat
    """Peak of dense matrix products in float32 as torch computes them by default (no TF32), 1e12 FLOP/s."""
    memory_gb_per_second: PositiveFloat
    """Bandwidth of its memory, 1e9 bytes/s."""


class LinkConfig(Section):
    """What connects devices."""

    gb_per_second: PositiveFloat
    """Bandwidth of each device in one direction, 1e9 bytes/s."""
    latency_microseconds: NonNegativeFloat
    """Of one message."""


class EfficiencyConfig(Section):
    """Shares of the peaks that programs reach.

    Defaults are those of A100s: `matrix_products` and `links` fitted to eight steps of Megatron-LM (Korthikanti et al.
    2022, table 5), `fused_attention` and `overlap` to sixteen of MPT under FSDP (llm-foundry), `memory` assumed; see
    docs/planning.md.
    """

    matrix_products: PositiveFraction = 0.85
    """Of the peak, for large matrix products."""
    fused_attention: PositiveFraction = 0.35
    """Of the peak, for the products of a fused attention kernel."""
    memory: PositiveFraction = 0.83
    """Of the bandwidth of memory; assumed."""
    links: PositiveFraction = 0.67
    """Of the bandwidth within and between machines."""
    overlap: Fraction = 0.43
    """Share of the time of overlapped collectives that computing hides."""


class ReliabilityConfig(Section):
    """How often a run is interrupted, and what that costs."""

    failures_per_device_hour: Annotated[float, Field(ge=0, le=1e6)] = 1 / 50_676
    """Unplanned interruptions of the whole run for each device and hour, at most a million. Default: 419 in 54 days on
    16,384 devices (Llama 3, Grattafiori et al. 2024, section 3.3.4)."""
    restart_seconds: NonNegativeFloat = 600.0
    """From an interruption to the first step after it."""
    storage_gb_per_second: PositiveFloat = 10.0
    """Bandwidth of shared storage for checkpoints, all ranks together, 1e9 bytes/s."""


class CostConfig(Section):
    """Power and price."""

    watts_per_device: PositiveFloat
    """Drawn under load, with its share of the host."""
    power_usage_effectiveness: PositiveFloat = 1.1
    """Power of the whole site over that of its computers (PUE)."""
    carbon_kg_per_kwh: NonNegativeFloat = 0.385
    """Of the grid, kg CO2-equivalent. Default: mean of the USA as Touvron et al. 2023 take it."""
    price_per_device_hour: NonNegativeFloat = 0.0
    """In your currency; 0 = not told."""


class ClusterConfig(Section):
    """Equal machines with equal devices."""

    name: str
    """What it is called."""
    nodes: PositiveInt
    """Machines there are at most."""
    devices_per_node: PositiveInt
    """Ranks on each machine."""
    device: DeviceConfig
    """Of each rank."""
    link: LinkConfig
    """Within a machine."""
    network: LinkConfig
    """Between machines."""
    efficiency: EfficiencyConfig = EfficiencyConfig()
    """What of the peaks is reached."""
    reliability: ReliabilityConfig = ReliabilityConfig()
    """Interruptions and storage."""
    cost: CostConfig
    """Power and price."""

    @property
    def num_devices(self) -> int:
        """Of all machines."""
        return self.nodes * self.devices_per_node


def list_clusters(folder: Path = CLUSTER_FOLDER) -> list[str]:
    """Names of the described clusters."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_cluster(name_or_file: str, folder: Path = CLUSTER_FOLDER) -> ClusterConfig:
    """Read and validate the description of a cluster.

    Args:
        name_or_file: name of a file in `folder`, or path of a YAML file.
        folder: where descriptions by name lie.

    Raises:
        ConfigError: there is none of that name, or it has mistakes; each is named.
    """
    return read_cluster(find_cluster_file(name_or_file, folder))


def read_cluster(path: Path) -> ClusterConfig:
    """As `load_cluster`, for a file."""
    values, origins = read_yaml(path, "description of a cluster")
    try:
        return ClusterConfig.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise ConfigError("\n".join(explain_errors(error, ClusterConfig, values, origins))) from error


def find_cluster_of_device(torch_name: str, folder: Path = CLUSTER_FOLDER) -> ClusterConfig | None:
    """The description by name whose devices torch calls so; None when there is none.

    Args:
        torch_name: `torch.cuda.get_device_name()`, or `cpu`.
        folder: where descriptions by name lie.
    """
    for name in list_clusters(folder):
        try:
            cluster = load_cluster(name, folder)
        except ConfigError as error:
            logger.warning("left out: %s", error)
            continue
        if cluster.device.torch_name == torch_name:
            return cluster
    return None


def load_tracking_cluster(name_or_file: str | None) -> ClusterConfig | None:
    """The cluster that key `tracking.cluster` names, if it does.

    Raises:
        ConfigError: as of `load_cluster`, and names the key.
    """
    if name_or_file is None:
        return None
    path = find_cluster_file(name_or_file, asked_by="tracking.cluster =")
    if not path.is_file():
        raise ConfigError(
            f"tracking.cluster = {name_or_file}: there is no such file. Give one, a name of `llmtrain cluster "
            "list`, or leave the key out."
        )
    return read_cluster(path)


def find_cluster_file(
    name_or_file: str, folder: Path = CLUSTER_FOLDER, asked_by: str = "command line: --cluster"
) -> Path:
    """The file of a cluster; arguments and errors as of `load_cluster`."""
    if name_or_file.endswith((".yaml", ".yml")) or "/" in name_or_file:
        return Path(name_or_file)
    names = list_clusters(folder)
    if name_or_file in names:
        return folder / f"{name_or_file}.yaml"
    close: Sequence[str] = difflib.get_close_matches(name_or_file, names, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else f"There are: {', '.join(names) or 'none'}; or give a YAML file."
    raise ConfigError(f"{asked_by} {name_or_file}: {folder} has no cluster of that name. {hint}")
