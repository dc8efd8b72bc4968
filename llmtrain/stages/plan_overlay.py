"""The best layout of `llmtrain plan --search` as a YAML overlay, with the command that runs it in its first line.

In: a proposal's keys, the options of the search, ranks. Out: the file.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from llmtrain.config.cluster import ClusterConfig
from llmtrain.config.loader import split_override
from llmtrain.errors import ConfigError
from llmtrain.stages.plan_options import PlanOptions


def write_overlay(overlay: dict[str, Any], options: PlanOptions, ranks: int, cluster: ClusterConfig) -> None:
    """Write the file that `--write` names.

    Args:
        overlay: sections with keys.
        options: of the search.
        ranks: world size.
        cluster: where the ranks are to run.

    Raises:
        ConfigError: the file cannot be written.
    """
    path = options.write
    assert path is not None
    head = [f"Overlay: {describe_command(overlay, options, ranks, cluster)}"]
    if ranks > cluster.devices_per_node:
        head.append("Run it on each machine, with its own NODE_RANK and the first one's name as MASTER_ADDR.")
    head.append(f"The fastest layout found for {ranks:,} ranks of {cluster.name}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"# {line}\n" for line in head) + yaml.safe_dump(overlay, sort_keys=False))
    except OSError as error:
        raise ConfigError(
            f"command line: --write {path}: {error.strerror}. Give a file that can be written."
        ) from error


def describe_command(overlay: dict[str, Any], options: PlanOptions, ranks: int, cluster: ClusterConfig) -> str:
    """The command that trains with the overlay; arguments as of `write_overlay`."""
    files = [str(path) for name in (*options.more, options.write) for path in ("-c", name)]
    config = shlex.quote(str(options.config))
    words = shlex.join([*files, *_keep_overrides(options.overrides, overlay)])
    if ranks <= cluster.devices_per_node:
        return f"llmtrain pretrain {config} --nproc {ranks} {words}"
    nodes = next(
        count for count in range(2, ranks + 1) if ranks % count == 0 and ranks // count <= cluster.devices_per_node
    )
    return f"NODES={nodes} RANKS_PER_NODE={ranks // nodes} bash launch/torchrun.sh {config} {words}"


def _keep_overrides(overrides: Sequence[str], overlay: dict[str, Any]) -> Iterator[str]:
    """Those that leave the overlay's keys alone: overrides would win over the file."""
    for override in overrides:
        (section, *inner), value = split_override(override)
        taken = overlay.get(section, {})
        if taken and not inner and isinstance(value, dict):
            yield from (f"{section}.{key}={json.dumps(kept)}" for key, kept in value.items() if key not in taken)
        elif not inner or inner[0] not in taken:
            yield override
