"""The end of a run: summary.json, its Markdown, and the picture of the curves."""

import contextlib
import importlib.metadata
import itertools
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtrain.config.root import Config
from llmtrain.plan.build import Plan
from llmtrain.tracking import metric_names as names
from llmtrain.tracking.planned import read_plan, render_plan
from llmtrain.tracking.run_folder import read_metrics

if TYPE_CHECKING:  # the mirror renders summaries without torch, which would cost it seconds and memory
    from llmtrain.data.baselines import Baselines
    from llmtrain.tracking.throughput import ThroughputMeter

_PACKAGES = ("llmtrain", "torch", "deepspeed", "transformers", "sentencepiece", "numpy", "mlflow")
# Okabe and Ito 2008: told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")


def build_summary(
    config: Config, plan: Plan, baselines: "Mapping[str, Baselines]", meter: "ThroughputMeter", seconds: float
) -> dict[str, Any]:
    """Everything worth knowing about a finished run, as plain values.

    Args:
        config: the resolved configuration.
        plan: derived numbers.
        baselines: unigram and bigram of each source, on the windows that the model was validated on.
        meter: throughput.
        seconds: wall time of this attempt, from the first to the last step.
    """
    series = read_metrics(config.run.folder)
    last = {name: points[-1][1] for name, points in series.items()}
    targets = {name: row.target_tokens for name, row in baselines.items()}
    total = sum(targets.values())

    def pooled(kind: str) -> float:
        return float(sum(getattr(row, kind) * targets[name] for name, row in baselines.items()) / total)

    return {
        "run": config.run.name,
        "parameters": plan.shape.num_parameters,
        "train_steps": plan.train_steps,
        "train_tokens": plan.train_tokens,
        "world_size": plan.world_size,
        "device": meter.device.type,
        "zero_stage": plan.zero_stage,
        "train_loss": last[names.TRAIN_LOSS],
        "validation": {
            "loss": last[names.VALIDATION_LOSS],
            "unigram": pooled("unigram"),
            "bigram": pooled("bigram"),
            "target_tokens": total,
            "by_source": {
                name: {
                    "loss": last[names.validation_loss_of(name)],
                    "train_loss": last.get(names.train_loss_of(name)),
                    "unigram": row.unigram,
                    "bigram": row.bigram,
                    "target_tokens": row.target_tokens,
                    "baseline_train_tokens": row.train_tokens,
                    "epochs": last.get(names.epoch_of(name)),
                }
                for name, row in baselines.items()
            },
        },
        "tokens_per_second": meter.tokens_per_second,
        "model_flops_utilization": meter.model_flops_utilization,
        "peak_flops": meter.peak_flops,
        "data_wait_fraction": meter.data_wait_fraction,
        "peak_memory_gib": last[names.PEAK_MEMORY_GIB],
        "wall_seconds": seconds,
        "plan": read_plan(config.run.folder),
        "versions": {"python": platform.python_version(), **find_versions()},
        "commit": find_commit(),
    }


def render_summary(summary: Mapping[str, Any]) -> str:
    """The summary as Markdown."""
    validation = summary["validation"]
    rows = [
        f"| {name} | {row['loss']:.4f} | {row['bigram']:.4f} | {row['unigram']:.4f} | {row['target_tokens']:,} "
        f"| {row['epochs']:.2f} |"
        for name, row in validation["by_source"].items()
    ]
    return "\n".join(
        [
            "| validation, nats per token | model | bigram | unigram | tokens | epochs read |",
            "|---|---|---|---|---|---|",
            *rows,
            f"| **all** | **{validation['loss']:.4f}** | **{validation['bigram']:.4f}** "
            f"| {validation['unigram']:.4f} | {validation['target_tokens']:,} | |",
            "",
            f"{summary['parameters']:,} parameters, {summary['train_tokens']:,} tokens in "
            f"{summary['train_steps']:,} steps; "
            f"{summary['tokens_per_second']:,.0f} tokens/s, {summary['model_flops_utilization']:.1%} of the measured "
            f"matmul peak ({summary['peak_flops'] / 1e9:,.0f} GFLOP/s on {summary['world_size']} ranks); "
            f"{summary['peak_memory_gib']:.2f} GiB peak memory of rank 0; {summary['wall_seconds']:,.0f} s.",
            *(["", *render_plan(summary["plan"])] if summary.get("plan") else []),
        ]
    )


def plot_run(summary: Mapping[str, Any], folder: Path, output: Path) -> None:
    """Draw the curves of a run: losses per source against counting, and throughput.

    Args:
        summary: what `build_summary` gave.
        folder: run folder.
        output: PNG file to write.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    series, validation = read_metrics(folder), summary["validation"]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for colour, (source, row) in zip(itertools.cycle(COLOURS), validation["by_source"].items(), strict=False):
        # A source of small weight may have had no sequence in any interval.
        left.plot(*_columns(series.get(names.train_loss_of(source), [])), color=colour, alpha=0.5, linewidth=1.2)
        points = series[names.validation_loss_of(source)]
        left.plot(*_columns(points), "o-", color=colour, markersize=4, linewidth=1.6, label=source)
        left.axhline(row["bigram"], color=colour, linestyle=":", linewidth=1.2)
    left.set(
        xlabel="optimizer step",
        ylabel="loss (nats per token)",
        title="training (thin), validation (dots), bigram (dotted)",
    )
    left.legend(frameon=False)
    steps, speeds = _columns(series[names.TOKENS_PER_SECOND])
    right.plot(steps, speeds, color=COLOURS[0], linewidth=1.2)
    right.set(xlabel="optimizer step", ylabel="tokens per second", title="throughput")
    right.set_ylim(0, max(speeds) * 1.15)
    figure.savefig(output, dpi=130)


def find_commit() -> str | None:
    """The commit of the source tree this code runs from; None outside of a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except OSError:
        return None
    return result.stdout.strip() or None


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def find_versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a source tree that was not installed
            versions[name] = importlib.metadata.version(name)
    return versions
