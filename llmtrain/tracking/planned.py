"""What was planned of a run beside what it took: `plan.json` of the run folder, metrics of group `plan`, a table.

In: numbers of both kinds. Out: their forms. No torch: the mirror's process shows them too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmtrain.tracking import metric_names as names
from llmtrain.tracking.run_folder import write_whole

PLAN_NAME = "plan.json"

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
        """Both numbers and the error."""
        return {"planned": self.planned, "measured": self.measured, "error": self.error}


def write_plan(folder: Path, record: Mapping[str, Any]) -> None:
    """Replace `plan.json` of a run folder."""
    write_whole(folder / PLAN_NAME, json.dumps(record, indent=1) + "\n")


def read_plan(folder: Path) -> dict[str, Any]:
    """What `write_plan` wrote; empty when there is none."""
    path = folder / PLAN_NAME
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


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
