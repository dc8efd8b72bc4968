"""The manifest of one source and split: which shards there are, with sha256, what they were made of and with.

The sha256 of the manifest's bytes is the identity of the data: it follows the content, not the path.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from llmtrain.errors import DataError

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 2
READABLE_VERSIONS = (1, 2)  # version 1 knows no origins


class OriginsEntry(BaseModel):
    """The file beside a shard that tells where its documents come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str
    bytes: int
    sha256: str


class ShardEntry(BaseModel):
    """One shard file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str
    bytes: int
    token_count: int
    document_count: int
    sha256: str
    origins: OriginsEntry | None = None


class ShardManifest(BaseModel):
    """All shards of one split of one source."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format_version: int = MANIFEST_VERSION
    source: str
    split: str
    licence: str
    vocab_size: int
    bos_id: int
    eos_id: int
    tokenizer_sha256: str
    provenance: dict[str, Any]
    shards: list[ShardEntry]

    @property
    def token_count(self) -> int:
        """Tokens of all shards."""
        return sum(shard.token_count for shard in self.shards)

    @property
    def document_count(self) -> int:
        """Documents of all shards."""
        return sum(shard.document_count for shard in self.shards)


def choose_bytes_per_token(vocab_size: int) -> int:
    """2 where every id fits into uint16, else 4."""
    return 2 if vocab_size <= 1 << 16 else 4


def write_manifest(folder: Path, manifest: ShardManifest) -> None:
    """Write the manifest safely: it appears whole or not at all."""
    text = json.dumps(manifest.model_dump(), indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / MANIFEST_NAME, text.encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, flush it to disk, then rename it; a failure leaves nothing."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_manifest(folder: Path) -> tuple[ShardManifest, str]:
    """Read the manifest of a folder.

    Returns:
        The manifest and the sha256 of its bytes.

    Raises:
        DataError: it is missing, damaged, or of another version.
    """
    path = folder / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}. Write the shards with `llmtrain data prepare`.") from error
    try:
        manifest = ShardManifest.model_validate_json(content)
    except ValidationError as error:
        raise DataError(f"{path}: damaged: {error.errors()[0]['msg']}. Run `llmtrain data prepare` again.") from error
    if manifest.format_version not in READABLE_VERSIONS:
        readable = " and ".join(map(str, READABLE_VERSIONS))
        raise DataError(
            f"{path}: format version {manifest.format_version}; this llmtrain reads {readable}. "
            "Write the shards again with `llmtrain data prepare`."
        )
    return manifest, hashlib.sha256(content).hexdigest()
