"""What a finished run took for a step, and the workload that took it. Starts without torch.

In: a run folder. Out: `MeasuredRun`, or why the folder cannot be used.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmtrain.config.root import Config
from llmtrain.config.yaml_reader import read_yaml
from llmtrain.errors import ConfigError
from llmtrain.plan.build import build_plan
from llmtrain.plan.workload import Workload, build_workload
from llmtrain.stages.run_folder import CONFIG_NAME, load_run_config
from llmtrain.stages.vocabulary import find_vocab_size
from llmtrain.tracking import metric_names as names
from llmtrain.tracking.run_folder import EVENTS_NAME, read_lines, read_metrics, read_summary
from llmtrain.tracking.stage_folder import find_run, read_stage


@dataclass(frozen=True)
class MeasuredRun:
    """A finished run."""

    folder: Path
    work: Workload
    intervals: tuple[float, ...]
    """Seconds of a step in each logged interval of the last attempt, without the first, in which memory is taken."""
    torch_version: str
    device: str | None
    """`cpu` or `cuda`; None where an older summary does not tell."""

    @property
    def is_of_processors(self) -> bool:
        """Whether it was made on processors, as far as is known: torch without CUDA has no other devices."""
        return self.torch_version.endswith("+cpu") if self.device is None else self.device == "cpu"

    @property
    def compute_dtype(self) -> str:
        """Number format of the matrix products."""
        return {4: "float32", 2: "bfloat16"}[self.work.compute_bytes]

    @property
    def step_seconds(self) -> float:
        """Median of the intervals."""
        return statistics.median(self.intervals)


def read_measured_run(folder: Path) -> MeasuredRun:
    """Read a finished run of pretraining.

    Args:
        folder: run folder.

    Raises:
        ConfigError: it holds no run, a stage of post-training, or a run that is not finished; or its vocabulary is not
            known any more.
    """
    if read_stage(folder):
        raise ConfigError(
            f"{folder}: the folder of a post-training stage; `llmtrain plan` foretells pretraining. Give the run "
            f"folder: {find_run(folder)}."
        )
    if (folder / CONFIG_NAME).is_file() and "model" not in read_yaml(folder / CONFIG_NAME)[0]:
        raise ConfigError(
            f"{folder}: {CONFIG_NAME} has no section model: a run of post-training only, without steps of pretraining. "
            "Give the folder of a pretraining run."
        )
    config, summary = load_run_config(folder), read_summary(folder)
    if not summary:
        raise ConfigError(
            f"{folder}: not finished, summary.json is missing. Finish it: llmtrain pretrain {folder / CONFIG_NAME}; or "
            "give a finished run."
        )
    return MeasuredRun(
        folder,
        _build_workload(folder, config, summary),
        _read_intervals(folder),
        summary["versions"]["torch"],
        summary.get("device"),
    )


def _build_workload(folder: Path, config: Config, summary: dict[str, Any]) -> Workload:
    plan = build_plan(config, summary["world_size"], find_vocab_size(config))
    if plan.shape.num_parameters != summary["parameters"]:
        raise ConfigError(
            f"{folder}: the model had {summary['parameters']:,} parameters, with the {plan.shape.vocab_size:,} ids of "
            f"data.folder = {config.data.folder} it has {plan.shape.num_parameters:,}. Call this where the run was "
            "made, with the tokenizer it was made with."
        )
    return build_workload(config, plan)


def _read_intervals(folder: Path) -> tuple[float, ...]:
    points = read_metrics(folder).get(names.STEP_SECONDS, [])
    starts = [line["first_step"] for line in read_lines(folder / EVENTS_NAME) if line["event"] == "started"]
    # A finished run that is started once more takes no step.
    first = max((step for step in starts if points and step < points[-1][0]), default=0)
    seconds = [value for step, value in points if step > first]
    if not seconds:
        raise ConfigError(
            f"{folder}: metrics.jsonl holds no {names.STEP_SECONDS}. Give a run whose metrics were not removed."
        )
    return tuple(seconds[1:] or seconds)
