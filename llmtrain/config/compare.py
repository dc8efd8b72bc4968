"""Differences between two configurations, by dotted key, and which of them make another run."""

from collections.abc import Container
from typing import Any

from llmtrain.config.root import Config, PosttrainingConfig

# What a checkpoint was made with; everything else may change when a run continues.
FIXED = (
    "run.seed",
    "model.",
    "data.sources",
    "data.temperature",
    "data.packing",
    "data.mask_across_documents",
    "data.reset_position_ids",
    "batch.sequence_length",
    "batch.global_batch_size",
)


def flatten(config: PosttrainingConfig) -> dict[str, Any]:
    """Every leaf by dotted key, as plain values: `{"batch.micro_batch_size": 8, ...}`."""
    leaves: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else key)
        else:
            leaves[path] = value

    walk(config.model_dump(mode="json"), "")
    return leaves


def find_changes(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """Keys whose values differ, with both values; a key that one of them lacks has None there."""
    before, after = flatten(old), flatten(new)
    keys = sorted(before.keys() | after.keys())
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def find_fixed_changes(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """Changes after which it would be another run; shares of later stages are compared with the past elsewhere."""
    joins = {name for name, source in new.data.sources.items() if name not in old.data.sources and not source.weight}
    return [change for change in find_changes(old, new) if _is_fixed(change[0], joins)]


def list_changes(changes: list[tuple[str, Any, Any]]) -> str:
    """One line for each change, for messages."""
    return "\n".join(f"  {key}: {old} there, {new} here" for key, old, new in changes)


def _is_fixed(key: str, joining_sources: Container[str]) -> bool:
    if not key.startswith(FIXED):
        return False
    # A cap says what may be asked for, not what is read: a longer run may need a higher one.
    section, _, rest = key.partition("data.sources.")
    is_joining = not section and rest.rpartition(".")[0] in joining_sources
    return not key.endswith(".max_epochs") and not is_joining
