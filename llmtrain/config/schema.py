"""The configuration as a JSON schema, so that editors complete keys and show their help."""

from typing import Any

from llmtrain.config.root import Config


def build_json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a run's YAML file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
