"""The account of a preparation for people and programs: report.html, report.md and report.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.report_page import render_page
from llmtrain.errors import DataError
from llmtrain.shards.manifest import write_atomically


def write_report(folder: Path, results: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write report.json and what is drawn from it.

    Args:
        folder: `data.folder`.
        results: by source what its stages told.

    Returns:
        The path of report.html.

    Raises:
        DataError: shards or the tokenizer are missing or damaged.
    """
    sources = {name: _derive(result) for name, result in results.items()}
    write_atomically(folder / "report.json", (json.dumps(sources, indent=1, ensure_ascii=False) + "\n").encode())
    return draw_report(folder)


def draw_report(folder: Path) -> Path:
    """Write report.md and report.html from report.json and the shards.

    Returns:
        The path of report.html.

    Raises:
        DataError: report.json, shards or the tokenizer are missing or damaged, or the folder cannot be written.
    """
    path = folder / "report.json"
    try:
        sources = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}. Run `llmtrain data prepare` again.") from error
    name = folder.resolve().name
    page = folder / "report.html"
    try:
        files = {folder / "report.md": _render(name, sources), page: render_page(name, sources, folder)}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not what `llmtrain data prepare` writes: {type(error).__name__}: {error}. Run it again."
        ) from error
    try:
        for file, content in files.items():
            write_atomically(file, content.encode())
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written: {error}. Free some space, or copy the folder to where it can be written."
        ) from error
    return page


def _derive(result: Mapping[str, Any]) -> dict[str, Any]:
    tokens = result["train_tokens"] + result["validation_tokens"]
    return {**result, "characters_per_token": round(result["characters"] / tokens, 3)}


def _render(name: str, sources: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        f"# Data of {name}",
        "",
        "| source | licence | units | input MB | documents | characters | train tokens | validation tokens | "
        "characters/token | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {source} | {', '.join(row['licences'])} | {row['units']} | {row['input_bytes'] / 1e6:.1f} "
        f"| {row['documents']:,} | {row['characters']:,} | {row['train_tokens']:,} | {row['validation_tokens']:,} "
        f"| {row['characters_per_token']:.2f} | {row['seconds']:.1f} |"
        for source, row in sources.items()
    ]
    for source, row in sources.items():
        for told in ("dropped", "changed", "noted"):
            lines += ["", f"## {source}: {told}", ""]
            if not row.get(told):
                lines.append("Nothing.")
            for reason, count in sorted(row.get(told, {}).items(), key=lambda item: -item[1]):
                lines.append(f"* {reason}: {count:,}")
                lines += [f"  * `{sample}`" for sample in row["samples"].get(reason, [])]
    return "\n".join(lines) + "\n"
