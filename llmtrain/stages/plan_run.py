"""Command `plan`: what a run needs before it is started. Starts without torch.

In: the configuration, a described cluster, a number of ranks. Out: tables, or JSON, on standard output.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from llmtrain.errors import ConfigError

_DEFAULT_CLUSTER = "dgx_h100"
_SHOWN = 10


def plan_run(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file of the run; not needed with --calibrate.", metavar="CONFIG")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value ...", metavar="[OVERRIDES]")] = None,
    more: Annotated[list[Path] | None, typer.Option("--config", "-c", help="More YAML files; later ones win.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help=f"A name of `cluster list`, or a YAML file; default {_DEFAULT_CLUSTER}.")
    ] = None,
    world_size: Annotated[int | None, typer.Option(min=1, help="Ranks; default: the fewest whole machines.")] = None,
    search: Annotated[bool, typer.Option("--search", help="Rank every layout that fits.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Formula and source beside each number.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    write: Annotated[
        Path | None,
        typer.Option(help="With --search: the best layout, as an overlay; with --calibrate: the fitted cluster."),
    ] = None,
    calibrate: Annotated[
        list[Path] | None, typer.Option(help="Finished run to fit the cluster's efficiency to; several times.")
    ] = None,
) -> None:
    """What a run needs: memory of each rank, time of a step, days, money, energy; or the best layout for a cluster."""
    from llmtrain.config.cluster import load_cluster
    from llmtrain.config.loader import load_config
    from llmtrain.stages.vocabulary import find_vocab_size

    if write is not None and bool(calibrate) == search:
        raise ConfigError(
            "command line: --write needs --search, to write the best layout found, or --calibrate, to write the "
            "fitted cluster. Add one of them, not both."
        )
    if calibrate and config is not None and as_json:
        raise ConfigError("command line: --calibrate with CONFIG prints two things, --json one. Leave out one of them.")
    if config is None and not calibrate:
        raise ConfigError("command line: plan needs CONFIG, the YAML file of a run, or --calibrate RUN. Add one.")
    if calibrate:
        from llmtrain.stages.plan_calibrate import calibrate_and_tell

        described = calibrate_and_tell(calibrate, cluster, write, as_json)
    else:
        described = load_cluster(cluster or _DEFAULT_CLUSTER)
    if config is None:
        return
    loaded = load_config([config, *(more or [])], overrides or []).config
    vocab_size = find_vocab_size(loaded)
    if search:
        _search(loaded, described, world_size or described.num_devices, vocab_size, config, write, as_json)
        return

    from llmtrain.plan.build import build_plan
    from llmtrain.plan.estimate import build_estimate
    from llmtrain.plan.feasible import choose_world_size, find_obstacles
    from llmtrain.stages.plan_tables import print_estimate

    ranks = world_size or choose_world_size(loaded, described)
    obstacles = find_obstacles(loaded, ranks, described)
    if obstacles:
        raise ConfigError("\n".join(obstacles))
    estimate = build_estimate(loaded, build_plan(loaded, ranks, vocab_size), described)
    if as_json:
        typer.echo(json.dumps(_estimate_to_dict(estimate), indent=2))
    else:
        print_estimate(estimate, explain)


def _estimate_to_dict(estimate: Any) -> dict[str, Any]:
    from llmtrain.plan.report import list_rows

    groups: dict[str, Any] = {}
    for row in list_rows(estimate):
        value = None if row.value == float("inf") else row.value  # JSON has no infinity
        groups.setdefault(row.group, {})[row.key] = value
    groups["memory"] = {
        "verdict": estimate.verdict,
        "device_gib": estimate.cluster.device.memory_gib,
        "pipeline_ranks": [{**dataclasses.asdict(memory), "total": memory.total} for memory in estimate.memories],
    }
    return groups


def _search(
    loaded: Any, described: Any, ranks: int, vocab_size: int, config: Path, write: Path | None, as_json: bool
) -> None:
    from llmtrain.plan.search import keep_runnable, search_layouts
    from llmtrain.stages.plan_tables import print_proposals

    if ranks > described.num_devices:
        raise ConfigError(
            f"world: {ranks:,} ranks, {described.name} has {described.num_devices:,} devices = {described.nodes:,} "
            f"machines x {described.devices_per_node}. Choose at most {described.num_devices:,}."
        )
    result = search_layouts(loaded, ranks, described, vocab_size)
    best = keep_runnable(result.proposals, loaded, ranks, vocab_size, _SHOWN)
    if not best:
        from llmtrain.plan.feasible import explain_no_layout

        raise ConfigError(explain_no_layout(loaded, ranks, described, result))
    if write is not None:
        _write_overlay(best[0].overlay, config, write, ranks, described.name)
    if as_json:
        rows = [
            {"overlay": found.overlay, "step_seconds": found.step.total, "memory_bytes": found.memory.total,
             "step": dataclasses.asdict(found.step), "memory": dataclasses.asdict(found.memory)}
            for found in best
        ]  # fmt: skip
        counts = {"tried": result.tried, "too_large": result.too_large}
        typer.echo(json.dumps({"world_size": ranks, **counts, "proposals": rows}, indent=2))
    else:
        print_proposals(best, result, described)


def _write_overlay(overlay: dict[str, Any], config: Path, path: Path, ranks: int, cluster: str) -> None:
    import yaml

    head = f"# Overlay: llmtrain pretrain {config} -c {path}\n"
    head += f"# The fastest layout found for {ranks:,} ranks of {cluster}.\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + yaml.safe_dump(overlay, sort_keys=False))
    except OSError as error:
        raise ConfigError(
            f"command line: --write {path}: {error.strerror}. Give a file that can be written."
        ) from error
