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
    simulate_failures: Annotated[bool, typer.Option("--simulate-failures", help="Play the run with failures.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="With --simulate-failures; default: 0.")] = None,
    scaling: Annotated[Path | None, typer.Option(help="Draw strong and weak scaling to this PNG file.")] = None,
) -> None:
    """What a run needs: memory of each rank, time of a step, days, money, energy; or the best layout for a cluster."""
    from llmtrain.config.cluster import load_cluster
    from llmtrain.config.loader import load_config
    from llmtrain.stages.vocabulary import find_vocab_size

    _check_options(config, search, as_json, write, calibrate, simulate_failures, seed, scaling)
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
        ranks = world_size or described.num_devices
        values = _search(loaded, described, ranks, vocab_size, config, write, as_json)
        if scaling is not None:
            from llmtrain.plan.scaling import scale_searched
            from llmtrain.stages.plan_scaling import tell_scaling

            curves = scale_searched(loaded, described, ranks, vocab_size)
            values["scaling"] = tell_scaling(curves, loaded, described, scaling, as_json)
        if as_json:
            typer.echo(json.dumps(values, indent=2))
        return
    _plan_layout(loaded, described, world_size, vocab_size, explain, as_json, simulate_failures, seed or 0, scaling)


def _check_options(
    config: Path | None,
    search: bool,
    as_json: bool,
    write: Path | None,
    calibrate: list[Path] | None,
    simulate_failures: bool,
    seed: int | None,
    scaling: Path | None,
) -> None:
    """Refuse options that do not go together."""
    if write is not None and bool(calibrate) == search:
        raise ConfigError(
            "command line: --write needs --search, to write the best layout found, or --calibrate, to write the "
            "fitted cluster. Add one of them, not both."
        )
    if calibrate and config is not None and as_json:
        raise ConfigError("command line: --calibrate with CONFIG prints two things, --json one. Leave out one of them.")
    if config is None and not calibrate:
        raise ConfigError("command line: plan needs CONFIG, the YAML file of a run, or --calibrate RUN. Add one.")
    if simulate_failures and search:
        raise ConfigError(
            "command line: --simulate-failures plays one layout, --search ranks many. Write the best one with --search "
            "--write FILE, then plan with -c FILE --simulate-failures."
        )
    if seed is not None and not simulate_failures:
        raise ConfigError("command line: --seed needs --simulate-failures: it decides them. Add --simulate-failures.")
    if scaling is not None and scaling.suffix != ".png":
        raise ConfigError(f"command line: --scaling {scaling}: the picture is a PNG. Give a file that ends in .png.")


def _plan_layout(
    loaded: Any,
    described: Any,
    world_size: int | None,
    vocab_size: int,
    explain: bool,
    as_json: bool,
    simulate_failures: bool,
    seed: int,
    scaling: Path | None,
) -> None:
    """Plan the layout of the configuration."""
    from llmtrain.plan.build import build_plan
    from llmtrain.plan.estimate import build_estimate
    from llmtrain.plan.feasible import choose_world_size, find_obstacles
    from llmtrain.stages.plan_sources import find_mixture_use, print_sources, sources_to_dict
    from llmtrain.stages.plan_tables import open_console, print_estimate

    ranks = world_size or choose_world_size(loaded, described)
    obstacles = find_obstacles(loaded, ranks, described)
    if obstacles:
        raise ConfigError("\n".join(obstacles))
    estimate = build_estimate(loaded, build_plan(loaded, ranks, vocab_size), described)
    use = find_mixture_use(loaded, estimate.plan)
    values = _estimate_to_dict(estimate) | {"mixture": sources_to_dict(use)}
    if not as_json:
        print_estimate(loaded, estimate, explain)
        print_sources(open_console(), use, loaded.data)
    if simulate_failures:
        values["simulated_failures"] = _simulate(loaded, estimate, seed, as_json)
    if scaling is not None:
        from llmtrain.plan.scaling import scale_configured
        from llmtrain.stages.plan_scaling import tell_scaling

        values["scaling"] = tell_scaling(scale_configured(loaded, estimate), loaded, described, scaling, as_json)
    if as_json:
        typer.echo(json.dumps(values, indent=2))


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


def _simulate(loaded: Any, estimate: Any, seed: int, as_json: bool) -> dict[str, Any]:
    from llmtrain.plan.simulate import play_policies
    from llmtrain.stages.plan_failures import failures_to_dict, print_failures
    from llmtrain.stages.plan_tables import open_console

    policies = play_policies(estimate, loaded.checkpoint.save_every_steps, seed)
    if not as_json:
        print_failures(open_console(), policies, estimate, seed)
    return failures_to_dict(policies, estimate, seed)


def _search(
    loaded: Any, described: Any, ranks: int, vocab_size: int, config: Path, write: Path | None, as_json: bool
) -> dict[str, Any]:
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
    if not as_json:
        print_proposals(best, result, described)
    rows = [
        {"overlay": found.overlay, "step_seconds": found.step.total, "memory_bytes": found.memory.total,
         "verdict": found.verdict, "step": dataclasses.asdict(found.step), "memory": dataclasses.asdict(found.memory)}
        for found in best
    ]  # fmt: skip
    return {"world_size": ranks, "tried": result.tried, "too_large": result.too_large, "proposals": rows}


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
