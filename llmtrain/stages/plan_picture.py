"""The picture of strong and weak scaling: throughput, MFU, and where the time of a step goes.

In: `Scaling`. Out: a PNG file. matplotlib is imported only here, when a picture is drawn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmtrain.config.cluster import ClusterConfig
from llmtrain.errors import ConfigError
from llmtrain.plan.scaling import Scaling, ScalingPoint

_TOO_LARGE = "does not fit"
_PARTS = {
    "compute": "compute",
    "recompute": "recompute",
    "tensor_communication": "tensor parallel",
    "pipeline_communication": "between stages",
    "bubble": "pipeline bubble",
    "data_communication": "gradients, weights",
    "update": "update",
}


def draw_scaling(scaling: Scaling, cluster: ClusterConfig, title: str, output: Path) -> None:
    """Draw both curves: throughput with the ideal line, MFU, and where the time of a step goes.

    Args:
        scaling: the points.
        cluster: its size is marked.
        title: of the whole picture: which run, where.
        output: PNG file to write.

    Raises:
        ConfigError: it cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from llmtrain.tracking.summary import COLOURS

    mpl.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    speed, utilization, parts = figure.subplots(1, 3)
    curves = (
        ("strong: the global batch stays", scaling.strong, COLOURS[0], "o"),
        ("weak: the batch grows with the ranks", scaling.weak, COLOURS[1], "s"),
    )
    for label, points, colour, marker in curves:
        style = {"color": colour, "marker": marker, "markersize": 4.5}
        for axes, values in (
            (speed, [point.tokens_per_second for point in points]),
            (utilization, [100 * point.model_flops_utilization for point in points]),
        ):
            if points:
                axes.plot([point.ranks for point in points], values, linewidth=1.6, label=label, **style)
                _mark_too_large(axes, points, values, style)
    _draw_ideal(speed, scaling)
    speed.set(yscale="log", ylabel="tokens per second", title="throughput")
    utilization.set(ylabel="model FLOPs utilization (%)", title="MFU, causal attention")
    utilization.set_ylim(0, 108 * max(point.model_flops_utilization for _, points, *_ in curves for point in points))
    _stack_parts(parts, scaling.strong or scaling.weak, COLOURS)
    parts.set_title(f"where a step goes, {'strong' if scaling.strong else 'weak'} scaling")
    for axes in (speed, utilization, parts):
        _finish_ranks(axes, scaling, cluster)
    speed.yaxis.set_major_formatter(lambda value, _: _shorten(value))
    legend = dict(zip(*reversed(speed.get_legend_handles_labels()), strict=True))  # a label of both curves once
    figure.legend(
        legend.values(), legend.keys(), loc="outside lower center", ncols=len(legend), frameon=False, fontsize=9
    )
    figure.suptitle(title)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, dpi=130)
    except OSError as error:
        raise ConfigError(
            f"command line: --scaling {output}: {error.strerror}. Give a file that can be written."
        ) from error


def _mark_too_large(
    axes: Any, points: Sequence[ScalingPoint], values: Sequence[float], style: Mapping[str, Any]
) -> None:
    """Hollow markers where memory is too small."""
    rows = [(point.ranks, value) for point, value in zip(points, values, strict=True) if point.verdict == _TOO_LARGE]
    if rows:
        ranks, heights = zip(*rows, strict=True)
        axes.plot(ranks, heights, markerfacecolor="white", linestyle="none", label=f"{_TOO_LARGE} memory", **style)


def _draw_ideal(axes: Any, scaling: Scaling) -> None:
    """A straight line through the point with the best throughput per rank."""
    points = (*scaling.strong, *scaling.weak)
    best = max(points, key=lambda point: point.tokens_per_second / point.ranks)
    ends = [min(point.ranks for point in points), max(point.ranks for point in points)]
    speeds = [best.tokens_per_second * ranks / best.ranks for ranks in ends]
    label = f"linear, as fast as {best.ranks:,} ranks each"
    axes.plot(ends, speeds, "--", color="0.55", linewidth=1.2, label=label, zorder=1)


def _stack_parts(axes: Any, points: Sequence[ScalingPoint], colours: Sequence[str]) -> None:
    shares = [[100 * getattr(point.step, name) / point.step.total for point in points] for name in _PARTS]
    axes.stackplot([point.ranks for point in points], shares, labels=list(_PARTS.values()), colors=colours)
    axes.set(ylabel="share of the step (%)", ylim=(0, 100))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)


def _finish_ranks(axes: Any, scaling: Scaling, cluster: ClusterConfig) -> None:
    """The axis of ranks, and where the cluster ends."""
    ranks = [point.ranks for point in (*scaling.strong, *scaling.weak)]
    axes.set(xscale="log", xlabel="ranks")
    axes.set_xlim(min(ranks) / 1.15, max(ranks) * 1.15)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if cluster.num_devices < max(ranks):
        label = f"more machines than {cluster.name} has ({cluster.num_devices:,} devices)"
        border = max(cluster.num_devices, min(ranks) / 1.15)
        axes.axvspan(border, max(ranks) * 1.15, color="0.92", linewidth=0, zorder=0, label=label)
        axes.axvline(border, color="0.5", linestyle=":", linewidth=1.0)


def _shorten(value: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
