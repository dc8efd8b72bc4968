"""Differences between two configurations, by dotted key."""

from typing import Any

from llmtrain.config.root import Config


def flatten(config: Config) -> dict[str, Any]:
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
