"""Command `plan`: what a run needs before it is started. Starts without torch.

In: the configuration, a described cluster, a number of ranks. Out: tables, or JSON, on standard output.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from llmtrain.errors import ConfigError
from llmtrain.stages.plan_json import render_json
from llmtrain.stages.plan_options import PlanOptions, check_options

_DEFAULT_CLUSTER = "dgx_h100"
_SHOWN = 10


def plan_run(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file of the run; not needed with --calibrate.", metavar="CONFIG")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value ...", metavar="[OVERRIDES]")] = None,
    more: Annotated[list[Path] | None, typer.Option("--config", "-c", help="More YAML files; later ones win.")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help=f"Of `cluster list`, or a YAML file; default: tracking.cluster, else {_DEFAULT_CLUSTER}."),
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
    from llmtrain.config.cluster import load_cluster, load_tracking_cluster
    from llmtrain.config.loader import load_config
    from llmtrain.stages.vocabulary import find_vocab_size

    options = PlanOptions(
        config,
        tuple(overrides or ()),
        tuple(more or ()),
        cluster,
        world_size,
        search,
        explain,
        as_json,
        write,
        tuple(calibrate or ()),
        simulate_failures,
        seed,
        scaling,
    )
    check_options(options)
    described = None
    if calibrate:
        from llmtrain.stages.plan_calibrate import calibrate_and_tell

        described = calibrate_and_tell(calibrate, cluster, write, as_json)
    elif cluster is not None:
        described = load_cluster(cluster)
    if config is None:
        return
    loaded = load_config([config, *options.more], options.overrides).config
    described = described or load_tracking_cluster(loaded.tracking.cluster) or load_cluster(_DEFAULT_CLUSTER)
    vocab_size = find_vocab_size(loaded)
    tell = _tell_search if search else _tell_layout
    values = tell(options, loaded, described, vocab_size)
    if as_json:
        typer.echo(render_json(values))


def _tell_layout(options: PlanOptions, loaded: Any, described: Any, vocab_size: int) -> dict[str, Any]:
    """Plan the layout of the configuration."""
    from llmtrain.plan.build import build_plan
    from llmtrain.plan.estimate import build_estimate
    from llmtrain.plan.feasible import choose_world_size, find_obstacles
    from llmtrain.stages.plan_sources import find_mixture_use, print_sources, sources_to_dict
    from llmtrain.stages.plan_tables import open_console, print_estimate

    ranks = options.world_size or choose_world_size(loaded, described)
    obstacles = find_obstacles(loaded, ranks, described)
    if obstacles:
        raise ConfigError("\n".join(obstacles))
    estimate = build_estimate(loaded, build_plan(loaded, ranks, vocab_size), described)
    use = find_mixture_use(loaded, estimate.plan)
    values = _estimate_to_dict(estimate) | {"mixture": sources_to_dict(use)}
    if not options.as_json:
        print_estimate(loaded, estimate, options.explain)
        print_sources(open_console(), use, loaded.data)
    if options.simulate_failures:
        values["simulated_failures"] = _simulate(loaded, estimate, options.seed or 0, options.as_json)
    if options.scaling is not None:
        from llmtrain.plan.scaling import scale_configured
        from llmtrain.stages.plan_scaling import tell_scaling

        curves = scale_configured(loaded, estimate)
        values["scaling"] = tell_scaling(curves, loaded, described, options.scaling, options.as_json)
    return values


def _estimate_to_dict(estimate: Any) -> dict[str, Any]:
    from llmtrain.plan.report import list_rows

    groups: dict[str, Any] = {}
    for row in list_rows(estimate):
        if row.value is not None:
            groups.setdefault(row.group, {})[row.key] = row.value
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


def _tell_search(options: PlanOptions, loaded: Any, described: Any, vocab_size: int) -> dict[str, Any]:
    """Rank the layouts of the configuration."""
    from llmtrain.plan.build import build_plan
    from llmtrain.plan.search import apply_overlay, keep_runnable, search_layouts
    from llmtrain.stages.plan_sources import find_mixture_use
    from llmtrain.stages.plan_tables import print_proposals

    ranks = options.world_size or described.num_devices
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
    # All layouts draw the same from the data: what is refused for one is refused for all.
    find_mixture_use(loaded, build_plan(apply_overlay(loaded, best[0].overlay), ranks, vocab_size))
    if options.write is not None:
        from llmtrain.stages.plan_overlay import write_overlay

        write_overlay(best[0].overlay, options, ranks, described)
    if not options.as_json:
        print_proposals(best, result, described)
    rows = [
        {"overlay": found.overlay, "step_seconds": found.step.total, "memory_bytes": found.memory.total,
         "verdict": found.verdict, "step": dataclasses.asdict(found.step), "memory": dataclasses.asdict(found.memory)}
        for found in best
    ]  # fmt: skip
    values = {"world_size": ranks, "tried": result.tried, "too_large": result.too_large, "proposals": rows}
    if options.scaling is not None:
        from llmtrain.plan.scaling import scale_searched
        from llmtrain.stages.plan_scaling import tell_scaling

        curves = scale_searched(loaded, described, ranks, vocab_size)
        values["scaling"] = tell_scaling(curves, loaded, described, options.scaling, options.as_json)
    return values
