"""The list of the sources that belong to prepared data, `shards/sources.json`, with the sha256 of their manifests.

Folders of sources that were taken out of a configuration stay on disk; what is not listed is not part of the data.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from llmtrain.errors import DataError
from llmtrain.shards.manifest import write_atomically

LIST_NAME = "sources.json"


class SourceList(BaseModel):
    """Sources of one data folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    tokenizer_sha256: str
    manifests: dict[str, dict[str, str]]
    """By source and split the sha256 of the manifest."""


def write_source_list(folder: Path, tokenizer_sha256: str, manifests: Mapping[str, Mapping[str, str]]) -> None:
    """Write the list, unless the same one is there.

    Args:
        folder: `data.folder`.
        tokenizer_sha256: of the tokenizer that made all of them.
        manifests: by source and split the sha256 of the manifest.
    """
    path = folder / "shards" / LIST_NAME
    listed = {"tokenizer_sha256": tokenizer_sha256, "manifests": manifests}
    content = (json.dumps(listed, indent=1, ensure_ascii=False) + "\n").encode()
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)


def read_source_list(folder: Path) -> SourceList | None:
    """The list of a data folder; None where there is none, as in data of earlier versions.

    Raises:
        DataError: it is damaged.
    """
    path = folder / "shards" / LIST_NAME
    try:
        return SourceList.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise DataError(f"{path}: damaged: {told}. Run `llmtrain data prepare` again, which writes it anew.") from error
