"""The resolved configuration for people: every key, its value and where the value came from."""

import json

from llmtrain.config.compare import flatten
from llmtrain.config.loader import LoadedConfig
from llmtrain.config.root import Config


def describe_config(loaded: LoadedConfig[Config]) -> list[tuple[str, str, str]]:
    """Rows (key, value, origin); the origin is `default` where the user set nothing."""
    origins = {".".join(map(str, path)): where for path, where in loaded.origins.items()}
    return [
        (key, json.dumps(value, ensure_ascii=False), origins.get(key, "default"))
        for key, value in flatten(loaded.config).items()
    ]
