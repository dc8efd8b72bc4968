"""Which model a folder holds, and what it descends from. Starts without torch.

FOLDER/model.safetensors, config.json, tokenizer.json ...     what `transformers` reads
FOLDER/llmtrain.json                                          stage, digest, digests of its parents
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from llmtrain.errors import CheckpointError

CARD_NAME = "llmtrain.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def digest_model(folder: Path) -> str:
    """sha256 over the names and contents of a model's weights, configuration and tokenizer.

    Raises:
        CheckpointError: there is no model.
    """
    check_is_model(folder)
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in (".safetensors", ".jinja") or path.name in ("config.json", "tokenizer.json"):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def check_is_model(folder: Path) -> None:
    """Refuse what is no saved model.

    Raises:
        CheckpointError: there is none, or its weights are not safetensors.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: no model here, config.json is missing. Give a Hugging Face folder.")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise CheckpointError(f"{folder}: no model.safetensors. Only safetensors are read; convert the weights first.")


def read_card(folder: Path) -> dict[str, Any]:
    """Stage and ancestors of a model made here; empty for any other."""
    path = folder / CARD_NAME
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
