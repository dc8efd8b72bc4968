"""The account of a preparation for people and programs: report.md and report.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmtrain.shards.manifest import write_atomically


def write_report(folder: Path, results: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write both files.

    Args:
        folder: `data.folder`.
        results: by source what its stages told.

    Returns:
        The path of report.md.
    """
    sources = {name: _derive(result) for name, result in results.items()}
    write_atomically(folder / "report.json", (json.dumps(sources, indent=1, ensure_ascii=False) + "\n").encode())
    path = folder / "report.md"
    write_atomically(path, _render(folder.name, sources).encode())
    return path


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
        lines += ["", f"## {source}: dropped", ""]
        if not row["dropped"]:
            lines.append("Nothing.")
        for reason, count in sorted(row["dropped"].items(), key=lambda item: -item[1]):
            lines.append(f"* {reason}: {count:,}")
            lines += [f"  * `{sample}`" for sample in row["samples"].get(reason, [])]
    return "\n".join(lines) + "\n"
