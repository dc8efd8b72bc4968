"""What was planned of a run beside what it took: `plan.json` of the run folder, metrics of group `plan`, a table.

`plan_ranks.json` holds memory and messages of every rank.

In: numbers of both kinds. Out: their forms. No torch: the mirror's process shows them too.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmtrain.tracking import metric_names as names
from llmtrain.tracking.run_folder import write_whole

PLAN_NAME, RANKS_NAME = "plan.json", "plan_ranks.json"

_TITLES = {
    "step_seconds": "time of a step, s",
    "peak_memory_gib": "peak memory of a rank in training, GiB",
    "checkpoint_gib": "checkpoint, GiB",
    "sent_gib": "sent by a rank in a step, GiB",
}
NUMBERS = tuple(_TITLES)
"""What is compared, with units."""


@dataclass(frozen=True)
class Compared:
    """One number; None where it is not known."""

    planned: float | None
    measured: float | None

    @property
    def error(self) -> float | None:
        """Planned over measured, less 1; None where either is unknown or nothing was measured."""
        return self.planned / self.measured - 1 if self.planned is not None and self.measured else None

    def to_dict(self) -> dict[str, float | None]:
        """Both numbers and the error; None in place of what is not finite, which JSON has no word for."""
        values = {"planned": self.planned, "measured": self.measured, "error": self.error}
        return {name: value if value is None or math.isfinite(value) else None for name, value in values.items()}


def write_plan(folder: Path, record: Mapping[str, Any]) -> None:
    """Replace `plan.json` of a run folder."""
    write_whole(folder / PLAN_NAME, json.dumps(record, indent=1) + "\n")


def read_plan(folder: Path) -> dict[str, Any]:
    """What `write_plan` wrote; empty when there is none."""
    path = folder / PLAN_NAME
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def write_rank_plans(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace `plan_ranks.json` of a run folder, a line for each rank."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_whole(folder / RANKS_NAME, f"[\n{lines}\n]\n")


def keep_measured(record: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """The record with what an attempt before measured of the same plan, where this one was too short to.

    Args:
        record: of this attempt.
        earlier: of the attempt before, empty if there was none.
    """
    kept = {
        name: earlier[name]
        for name in NUMBERS
        if name in earlier and record[name]["measured"] is None and earlier[name]["planned"] == record[name]["planned"]
    }
    return {**record, **kept}


def list_plan_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """The known numbers of a record under their names as metrics."""
    return {
        names.plan_of(name, kind): value
        for name in NUMBERS
        for kind, value in record[name].items()
        if value is not None
    }


def render_plan(record: Mapping[str, Any]) -> list[str]:
    """Lines of a Markdown table."""
    rows = [
        f"| {title} | {_show(row['planned'])} | {_show(row['measured'])} | {_show_error(row['error'])} |"
        for name, title in _TITLES.items()
        if (row := record[name])["measured"] is not None
    ]
    cluster = f" for {record['cluster']}" if record["cluster"] else ""
    return [f"| planned{cluster}, and measured | planned | measured | error |", "|---|---|---|---|", *rows]


def _show(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4g}"


def _show_error(error: float | None) -> str:
    return "" if error is None else f"{error:+.1%}"
