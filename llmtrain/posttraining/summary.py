"""The end of a stage: summary.json, and the same for people."""

import platform
from collections.abc import Mapping
from typing import Any

from llmtrain.posttraining.context import StageContext
from llmtrain.posttraining.model_digest import read_card
from llmtrain.tracking.run_folder import SUMMARY_MARKDOWN, write_whole
from llmtrain.tracking.summary import find_commit, find_versions


def write_summary(context: StageContext, summary: Mapping[str, Any], seconds: float) -> None:
    """Write summary.json and summary.md; rank 0 calls it."""
    assert context.writer is not None
    card = read_card(context.model_folder)
    whole = {
        "run": context.config.run.name,
        "stage": context.name,
        **summary,
        "world_size": context.world.world_size,
        "model_digest": card["digest"],
        "parents": card["parents"],
        "wall_seconds": seconds,
        "versions": {"python": platform.python_version(), **find_versions()},
        "commit": find_commit(),
    }
    context.writer.write_summary(whole)
    write_whole(context.folder / SUMMARY_MARKDOWN, render(whole))


def render(summary: Mapping[str, Any]) -> str:
    """Numbers of a summary as a table of Markdown; what is nested deeper than two levels stays in the file."""
    rows = []
    for key, value in summary.items():
        if isinstance(value, float | int | str) and key not in ("commit", "model_digest"):
            rows.append((key, value))
        elif isinstance(value, Mapping) and key not in ("versions", "records", "parents"):
            rows += [(f"{key}: {inner}", number) for inner, number in value.items() if isinstance(number, float | int)]
            for inner, group in value.items():
                if isinstance(group, Mapping):
                    rows += [(f"{key}: {inner}: {name}", n) for name, n in group.items() if isinstance(n, float | int)]
    lines = [f"| {key} | {f'{value:,.4f}' if isinstance(value, float) else value} |" for key, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines, ""])
