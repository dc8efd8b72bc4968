"""Part `--calibrate` of command `plan`: the shares of a described cluster, fitted to finished runs. Without torch.

In: run folders and a cluster. Out: `Calibration`; its table, its JSON, the cluster's YAML with the fitted shares.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich.box
from rich.table import Table

from llmtrain.config.cluster import ClusterConfig, list_clusters, load_cluster
from llmtrain.config.cluster_file import render_cluster, write_cluster
from llmtrain.errors import ConfigError
from llmtrain.plan.calibrate import (
    Share,
    compute_interval_errors,
    compute_leave_one_out_errors,
    count_fitted_shares,
    find_seen_shares,
    find_too_low,
    fit_efficiency,
)
from llmtrain.plan.report import describe_seconds
from llmtrain.plan.step_time import compute_step_time
from llmtrain.stages.measured_run import MeasuredRun, read_measured_run
from llmtrain.stages.plan_json import render_json
from llmtrain.stages.plan_tables import open_console


@dataclass(frozen=True)
class Calibration:
    """A cluster fitted to runs."""

    runs: tuple[MeasuredRun, ...]
    before: ClusterConfig
    after: ClusterConfig
    fitted: tuple[Share, ...]
    left_out_errors: tuple[float, ...]
    """Of each run left out of the fit; with one run, of each of its intervals; empty with a single interval."""
    too_low: tuple[str, ...]
    """Sentences: numbers of the description that a run contradicts."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        errors = [abs(error) for error in self.left_out_errors]
        has_several = len(self.runs) > 1
        return {
            "cluster": self.before.name,
            "runs": [
                {
                    "run": str(run.folder),
                    "parameters": run.work.shape.num_parameters,
                    "world_size": run.work.world_size,
                    "intervals": len(run.intervals),
                    "measured_seconds": run.step_seconds,
                    "before_seconds": compute_step_time(run.work, self.before).total,
                    "after_seconds": compute_step_time(run.work, self.after).total,
                    "left_out_error": self.left_out_errors[number] if has_several else None,
                }
                for number, run in enumerate(self.runs)
            ],
            "fitted": {share: getattr(self.after.efficiency, share) for share in self.fitted},
            "kept": {
                share: value for share, value in self.before.efficiency.model_dump().items() if share not in self.fitted
            },
            "left_out": {
                "over": "runs" if has_several else "intervals",
                "mean": statistics.mean(errors) if errors else None,
                "worst": max(errors) if errors else None,
            },
            "too_low": list(self.too_low),
        }


def calibrate_and_tell(
    folders: Sequence[Path], cluster: str | None, write: Path | None, as_json: bool
) -> ClusterConfig:
    """Fit, print, and write the file if one is named; arguments and errors as of `calibrate` and `write_calibrated`.

    Returns:
        The cluster with fitted shares.
    """
    found = calibrate(folders, cluster)
    if write is not None:
        write_calibrated(found, write, cluster)
    if as_json:
        sys.stdout.write(render_json(found.to_dict()) + "\n")
    else:
        print_calibration(found)
    return found.after


def calibrate(folders: Sequence[Path], cluster: str | None) -> Calibration:
    """Fit the shares of a cluster to finished runs.

    Args:
        folders: run folders.
        cluster: name or file; None = the described one that has as many devices as the runs had ranks.

    Raises:
        ConfigError: a folder cannot be used, is given twice, or its run does not fit the cluster.
    """
    if len(set(map(Path.resolve, folders))) < len(folders):
        raise ConfigError("command line: --calibrate: the same run is given twice. Give each once.")
    runs = tuple(read_measured_run(folder) for folder in folders)
    before = load_cluster(cluster) if cluster is not None else _choose_cluster(runs)
    for run in runs:
        _check_fits(run, before)
    _check_formats(runs)
    works = [run.work for run in runs]
    measured = [(run.work, run.step_seconds) for run in runs]
    shares = tuple(find_seen_shares(works, before)[: count_fitted_shares(len(runs))])
    after = fit_efficiency(measured, before, shares)
    if len(runs) > 1:
        errors = compute_leave_one_out_errors(measured, before, shares)
    elif len(runs[0].intervals) > 1:
        errors = compute_interval_errors(works[0], runs[0].intervals, before)
    else:
        errors = []
    too_low = [
        f"{run.folder}: a step takes {describe_seconds(run.step_seconds)}, less than {before.name} allows: {found}."
        for run in runs
        if (found := find_too_low(run.work, run.step_seconds, before))
    ]
    return Calibration(runs, before, after, shares, tuple(errors), tuple(too_low))


def _choose_cluster(runs: Sequence[MeasuredRun]) -> ClusterConfig:
    sizes = {run.work.world_size for run in runs}
    fitting = [found for found in map(load_cluster, list_clusters()) if sizes == {found.num_devices}]
    if len(fitting) != 1:
        raise ConfigError(
            f"command line: --calibrate: no one described cluster has the {', '.join(map(str, sorted(sizes)))} ranks "
            "of these runs. Add --cluster NAME, or measure this machine: llmtrain cluster measure --nproc "
            f"{max(sizes)} --output my_machine.yaml."
        )
    return fitting[0]


def _check_fits(run: MeasuredRun, cluster: ClusterConfig) -> None:
    ranks, devices = run.work.world_size, cluster.num_devices
    is_cpu = cluster.device.kind == "cpu"
    if ranks > devices or (is_cpu and ranks != devices):
        why = "processors share memory, so a description holds for one number of ranks" if is_cpu else "too few"
        raise ConfigError(
            f"{run.folder}: made by {ranks:,} ranks, {cluster.name} has {devices:,} devices: {why}. Give a cluster "
            f"with {ranks:,} devices: --cluster, or llmtrain cluster measure --nproc {ranks}."
        )
    if is_cpu and run.device not in ("cpu", None):
        raise ConfigError(
            f"{run.folder}: made on devices of kind {run.device}; {cluster.name} has processors. Give a cluster of "
            "kind gpu: --cluster, or llmtrain cluster measure on these devices."
        )
    if not is_cpu and run.is_of_processors:
        raise ConfigError(
            f"{run.folder}: made on processors, by torch {run.torch_version}; {cluster.name} has GPUs. Give a cluster "
            f"of kind cpu: --cluster, or llmtrain cluster measure --nproc {ranks}."
        )


def _check_formats(runs: Sequence[MeasuredRun]) -> None:
    """A share of the peak in one number format says nothing about another."""
    formats = {run.compute_dtype: run.folder for run in runs}
    if len(formats) > 1:
        told = ", ".join(f"{folder} in {name}" for name, folder in sorted(formats.items()))
        raise ConfigError(
            f"command line: --calibrate: runs of several number formats ({told}): each reaches its own share of its "
            "own peak. Give runs of one precision.compute_dtype, and write a cluster for each."
        )


def print_calibration(found: Calibration) -> None:
    """Runs, shares and errors as tables on standard output."""
    console = open_console()
    values = found.to_dict()
    columns = ("run", "parameters", "measured step", "before", "after", "error", "left out")
    table = Table(*columns, box=rich.box.SIMPLE_HEAD, title=found.before.name, title_justify="left")
    for row in values["runs"]:
        measured, after = row["measured_seconds"], row["after_seconds"]
        table.add_row(
            row["run"],
            f"{row['parameters']:,}",
            describe_seconds(measured),
            describe_seconds(row["before_seconds"]),
            describe_seconds(after),
            f"{after / measured - 1:+.1%}",
            "" if row["left_out_error"] is None else f"{row['left_out_error']:+.1%}",
        )
    console.print(table)
    for share in found.fitted:
        old, new = (getattr(cluster.efficiency, share) for cluster in (found.before, found.after))
        console.print(f"  efficiency.{share}: {old:.2f} before, {new:.2f} fitted")
    kept = ", ".join(f"{share} {value:.2f}" for share, value in values["kept"].items())
    console.print(f"  kept, for want of runs or because nothing depends on them: {kept}")
    console.print(f"  {_describe_errors(values)}")
    for sentence in found.too_low:
        console.print(f"  {sentence} Measure this machine: llmtrain cluster measure; or correct the file.")


def _describe_errors(values: dict[str, Any]) -> str:
    errors = values["left_out"]
    if errors["mean"] is None:
        return "one logged interval: nothing says how large the noise is. Lower training.log_every_steps."
    figures = f"mean {errors['mean']:.1%}, worst {errors['worst']:.1%}"
    if errors["over"] == "runs":
        return f"error of each run when the shares are fitted to the others: {figures}"
    return (
        f"error of each logged interval when the share is fitted to the others: {figures}. One run: that is its noise, "
        "not how well another model is foretold. Give several runs of different sizes."
    )


def write_calibrated(found: Calibration, path: Path, cluster: str | None) -> None:
    """Write the cluster with its fitted shares.

    Args:
        found: what was fitted.
        path: YAML file to write.
        cluster: as `calibrate` was given it, for the command in the first line.

    Raises:
        ConfigError: the file cannot be written.
    """
    runs = " ".join(f"--calibrate {run.folder}" for run in found.runs)
    head = [
        f"llmtrain plan {runs}{f' --cluster {cluster}' if cluster else ''} --write {path}",
        "",
        f"{found.before.name}, with shares fitted to the median step of each of these runs:",
        *(f"  {run.folder}: {describe_seconds(run.step_seconds)}, {run.work.shape.num_parameters:,} parameters"
          for run in found.runs),
        _describe_errors(found.to_dict()),
    ]  # fmt: skip
    notes = {f"efficiency.{share}": "fitted to the runs above" for share in found.fitted}
    write_cluster(render_cluster(found.after, head, notes), path, "--write")
