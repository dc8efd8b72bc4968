"""`llmtrain plan --scaling FILE.png`: strong and weak scaling as a picture, a table, and plain values.

In: `Scaling`. Out: a PNG file; text on standard output, or values for JSON.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.box
from rich.console import Console
from rich.table import Table

from llmtrain.config.cluster import ClusterConfig
from llmtrain.config.root import Config
from llmtrain.errors import ConfigError
from llmtrain.plan.report import describe_count, describe_seconds
from llmtrain.plan.scaling import FEWEST_RANKS, MOST_RANKS, Scaling, ScalingPoint
from llmtrain.stages.plan_picture import draw_scaling
from llmtrain.stages.plan_tables import open_console


def tell_scaling(
    scaling: Scaling, config: Config, cluster: ClusterConfig, picture: Path, as_json: bool
) -> dict[str, Any]:
    """Draw the picture, print the table unless JSON is asked for, and return everything as plain values.

    Raises:
        ConfigError: there is nothing to draw, or the picture cannot be written.
    """
    if not scaling.strong and not scaling.weak:
        raise ConfigError(
            f"command line: --scaling {picture}: no number of ranks from {FEWEST_RANKS} to {MOST_RANKS:,} that fills "
            f"machines of {cluster.devices_per_node} holds a layout that fits. Lower parallel.tensor_parallel_size x "
            "parallel.pipeline_parallel_size, or change the model."
        )
    draw_scaling(scaling, cluster, describe_scaling(scaling, config, cluster), picture)
    if not as_json:
        print_scaling(open_console(), scaling, cluster, picture)
    return scaling_to_dict(scaling, cluster, picture)


def describe_scaling(scaling: Scaling, config: Config, cluster: ClusterConfig) -> str:
    """The title: which run, on which machines, in which layouts."""
    work = (scaling.strong or scaling.weak)[0].work
    layout = "the best layout found for each number of ranks"
    if not scaling.is_searched:
        layout = f"tensor {work.tensor_parallel_size} x pipeline {work.pipeline_parallel_size}, ZeRO {work.zero_stage}"
        layout = f"configured layout ({layout}) with more data-parallel ranks"
    parameters = f"{describe_count(work.shape.num_parameters)} parameters"
    where = f"machines of {cluster.name} ({cluster.devices_per_node} x {cluster.device.name})"
    return f"{config.run.name}, {parameters}, planned on {where}\n{layout}"


def scaling_to_dict(scaling: Scaling, cluster: ClusterConfig, picture: Path) -> dict[str, Any]:
    """Everything that is printed, for JSON."""

    def tell(points: Sequence[ScalingPoint]) -> list[dict[str, Any]]:
        return [
            {
                "ranks": point.ranks,
                "data_parallel_size": point.work.data_parallel_size,
                "tensor_parallel_size": point.work.tensor_parallel_size,
                "pipeline_parallel_size": point.work.pipeline_parallel_size,
                "zero_stage": point.work.zero_stage,
                "micro_batch_size": point.work.micro_batch_size,
                "recompute": point.work.recompute,
                "global_batch_size": point.work.global_batch_size,
                "step": {"total": point.step.total, **dataclasses.asdict(point.step)},
                "tokens_per_second": point.tokens_per_second,
                "model_flops_utilization": point.model_flops_utilization,
                "efficiency": efficiency,
                "train_seconds": point.train_seconds if point.train_seconds < float("inf") else None,
                "memory_bytes": point.memory.total,
                "verdict": point.verdict,
            }
            for point, efficiency in zip(points, _compute_efficiencies(points), strict=True)
        ]

    return {
        "picture": str(picture),
        "layouts": "searched" if scaling.is_searched else "configured",
        "cluster_devices": cluster.num_devices,
        "strong": tell(scaling.strong),
        "weak": tell(scaling.weak),
    }


def _compute_efficiencies(points: Sequence[ScalingPoint]) -> list[float]:
    """Tokens per second and rank over those of the best point, fractions."""
    speeds = [point.tokens_per_second / point.ranks for point in points]
    return [speed / max(speeds) for speed in speeds]


def print_scaling(console: Console, scaling: Scaling, cluster: ClusterConfig, picture: Path) -> None:
    """A row for each point of both curves."""
    columns = ("scaling", "ranks", "data", "tensor", "pipeline", "ZeRO", "batch", "step", "tokens/s", "MFU")
    table = Table(*columns, "efficiency", "whole run", "memory", box=rich.box.SIMPLE_HEAD)
    for name, points in (("strong", scaling.strong), ("weak", scaling.weak)):
        for place, (point, efficiency) in enumerate(zip(points, _compute_efficiencies(points), strict=True)):
            work = point.work
            sizes = (work.data_parallel_size, work.tensor_parallel_size, work.pipeline_parallel_size, work.zero_stage)
            table.add_row(
                "" if place else name,
                f"{point.ranks:,}{'*' if point.ranks > cluster.num_devices else ''}",
                *map(str, sizes),
                f"{work.global_batch_size:,}",
                describe_seconds(point.step.total),
                f"{point.tokens_per_second:,.0f}",
                f"{point.model_flops_utilization:.1%}",
                f"{efficiency:.0%}",
                describe_seconds(point.train_seconds),
                point.verdict,
            )
    console.print(table)
    console.print("  efficiency: tokens per second and rank over those of the best point of the curve")
    console.print(
        f"  * more than the {cluster.num_devices:,} devices of {cluster.name}: the same machines in larger number"
    )
    if not scaling.strong:
        console.print(
            f"  no strong scaling: no number of ranks from {FEWEST_RANKS} to {MOST_RANKS:,} divides the batch in a "
            "layout that fits"
        )
    console.print(f"  picture: {picture}")
