"""A small, complete configuration for tests, and files of it."""

import os
from pathlib import Path
from typing import Any

import yaml

from llmtrain.config.loader import load_config
from llmtrain.config.root import Config

TINY: dict[str, Any] = {
    "run": {"name": "tiny", "root": "runs", "seed": 7},
    "data": {"folder": "data/tiny"},
    "batch": {"sequence_length": 16, "micro_batch_size": 2, "global_batch_size": 8},
    "model": {
        "family": "llama",
        "num_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "optimizer": {"learning_rate": 1e-2},
    "schedule": {"name": "cosine", "warmup_steps": 2},
    "training": {"train_steps": 10},
}


def write_tiny_config(folder: Path, **sections: dict[str, Any]) -> Path:
    """Write the tiny configuration, with whole keys of sections replaced (None: left out), and return its path."""
    values = {name: dict(section) for name, section in TINY.items()}
    for name, section in sections.items():
        merged = {**values.get(name, {}), **section}
        values[name] = {key: value for key, value in merged.items() if value is not None}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def load_tiny_config(folder: Path, *overrides: str) -> Config:
    """The tiny configuration with overrides; several processes may call it at once."""
    own = folder / f"process-{os.getpid()}"
    own.mkdir(exist_ok=True)
    # Every head of GPT-2 has keys and values of its own, so there is no such key.
    left_out = {"num_key_value_heads": None} if "model.family=gpt2" in overrides else {}
    return load_config([write_tiny_config(own, model=left_out)], list(overrides)).config
