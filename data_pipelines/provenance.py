"""What the manifest of a source tells about how its documents were made."""

import hashlib
import importlib.metadata
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipelines.sources.unit import Unit

MAX_LISTED_INPUTS = 100
"""Inputs named one by one; of more, a manifest holds the count, the bytes and the sha256 of their list."""

# Libraries that decide what text comes out, by the kind of a source.
_LIBRARIES = {
    "web": ("lxml", "resiliparse", "warcio"),
    "wikipedia": ("mwxml", "mwparserfromhell"),
    "code": (),
    "documents": ("datasets",),
}
_LIBRARIES_OF_ALL = ("llmtrain", "sentencepiece", "ftfy")


def describe_inputs(units: Sequence[Unit]) -> dict[str, Any]:
    """Inputs of a source: how many, how large, which; without times and folders above, so a copy is the same input."""
    rows: dict[str, dict[str, Any]] = {}
    for unit in units:
        for file, size, _ in unit.describe_inputs():
            row = rows.setdefault(file, {"path": _name(unit, file), "bytes": 0})
            row["bytes"] += size
    inputs = list(rows.values())
    inputs += [{"path": file} for unit in units for file in unit.files if file.startswith("hub:")]
    listing = json.dumps(inputs, ensure_ascii=True).encode()
    told: dict[str, Any] = {
        "count": len(inputs),
        "bytes": sum(row.get("bytes", 0) for row in inputs),
        "list_sha256": hashlib.sha256(listing).hexdigest(),
    }
    return told | ({"files": inputs} if len(inputs) <= MAX_LISTED_INPUTS else {})


def describe_versions(kind: str) -> dict[str, str]:
    """Versions that are installed, of what can change the text of a source of this kind."""
    versions = {"unicode": unicodedata.unidata_version}
    for name in (*_LIBRARIES_OF_ALL, *_LIBRARIES[kind]):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _name(unit: Unit, file: str) -> str:
    path = Path(file)
    relative = path.relative_to(unit.root) if unit.root and path.is_relative_to(unit.root) else Path(path.name)
    # File names are any bytes; those that are no UTF-8 could not be written.
    return str(relative).encode("utf-8", "backslashreplace").decode()
