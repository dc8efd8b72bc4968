"""Reads the shards of one source and split as one long stream of tokens.

Opening reads the manifest and asks for the size of each file; a shard is mapped, and its header checked, when it is
first touched. So opening a trillion tokens takes milliseconds.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llmtrain.errors import DataError
from llmtrain.shards.format import Tokens, map_document_ends, map_tokens, read_header
from llmtrain.shards.manifest import read_manifest
from llmtrain.shards.source_list import read_source_list


class ShardedTokens:
    """One split of one source."""

    def __init__(self, folder: Path) -> None:
        """Open a folder.

        Raises:
            DataError: the manifest is missing or damaged, or a shard has not the size it names.
        """
        self.folder = folder
        self.manifest, self.manifest_sha256 = read_manifest(folder)
        self.source, self.split = self.manifest.source, self.manifest.split
        self.token_count, self.document_count = self.manifest.token_count, self.manifest.document_count
        counts = [entry.token_count for entry in self.manifest.shards]
        self._starts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        self._tokens: list[Tokens | None] = [None] * len(counts)
        self._check_sizes()

    @property
    def shard_starts(self) -> NDArray[np.int64]:
        """Index in the stream of the first token of each shard, and the token count at the end."""
        return self._starts

    def read(self, start: int, length: int) -> NDArray[np.int64]:
        """Tokens [start, start + length) of the stream, fewer at its end."""
        row = np.empty((1, min(length, self.token_count - start)), np.int64)
        self.read_rows(np.array([start]), row)
        tokens: NDArray[np.int64] = row[0]
        return tokens

    def read_rows(self, starts: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Fill `rows[i]` with the tokens from `starts[i]` on.

        Args:
            starts: positions in the stream.
            rows: [number of starts, length]; every row must lie inside the stream.
        """
        length = rows.shape[1]
        shards = np.searchsorted(self._starts, starts, "right") - 1
        offsets = starts - self._starts[shards]
        for i, (shard, offset) in enumerate(zip(shards.tolist(), offsets.tolist(), strict=True)):
            tokens = self._map_shard(shard)
            if offset + length <= len(tokens):
                rows[i] = tokens[offset : offset + length]
            else:
                self._read_across(shard, offset, rows[i])

    def document_ends(self, shard: int) -> NDArray[np.uint64]:
        """For each document of a shard, the token index in the shard after its last token.

        Raises:
            DataError: the ends do not ascend to the last token.
        """
        path = self.folder / self.manifest.shards[shard].file
        header = read_header(path)
        ends = map_document_ends(path, header)
        if (ends[1:] < ends[:-1]).any() or int(ends[-1] if len(ends) else 0) != header.token_count:
            raise DataError(
                f"shard {path}: document ends do not ascend to the last of {header.token_count:,} tokens: damaged. "
                "Write it again with `llmtrain data prepare`."
            )
        return ends

    def verify(self, part: int = 0, parts: int = 1) -> None:
        """Check every shard, and the origins beside it, against its sha256.

        Args:
            part: which share of the shards; several processes may share the work.
            parts: number of shares.

        Raises:
            DataError: a shard is missing or not the one the manifest describes.
        """
        for entry in self.manifest.shards[part::parts]:
            read_header(self.folder / entry.file)
            _check_sha256("shard", self.folder / entry.file, entry.sha256)
            if entry.origins is not None:
                _check_sha256("origins", self.folder / entry.origins.file, entry.origins.sha256)

    def _check_sizes(self) -> None:
        for entry in self.manifest.shards:
            _check_size("shard", self.folder / entry.file, entry.bytes)
            if entry.origins is not None:
                _check_size("origins", self.folder / entry.origins.file, entry.origins.bytes)

    def _read_across(self, shard: int, offset: int, row: NDArray[np.int64]) -> None:
        filled = 0
        while filled < len(row):
            piece = self._map_shard(shard)[offset : offset + len(row) - filled]
            row[filled : filled + len(piece)] = piece
            filled, shard, offset = filled + len(piece), shard + 1, 0

    def _map_shard(self, shard: int) -> Tokens:
        tokens = self._tokens[shard]
        if tokens is None:
            entry = self.manifest.shards[shard]
            path = self.folder / entry.file
            header = read_header(path)
            if header.token_count != entry.token_count:
                raise DataError(
                    f"shard {path}: holds {header.token_count:,} tokens, the manifest says {entry.token_count:,}: they "
                    "do not belong together. Run `llmtrain data prepare` again."
                )
            tokens = self._tokens[shard] = map_tokens(path, header)
        return tokens


def _check_size(kind: str, path: Path, expected: int) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size != expected:
        found = "missing" if size is None else f"{size:,} bytes"
        raise DataError(
            f"{kind} {path}: {found}, the manifest says {expected:,} bytes: truncated, replaced or lost. "
            "Write it again with `llmtrain data prepare`."
        )


def _check_sha256(kind: str, path: Path, expected: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise DataError(
            f"{kind} {path}: sha256 is {digest}, the manifest says {expected}: damaged. "
            "Write it again with `llmtrain data prepare`."
        )


def open_data(
    folder: Path, split: Literal["train", "validation"], sources: Sequence[str] = ()
) -> dict[str, ShardedTokens]:
    """Open the shards that section `data` names.

    Args:
        folder: `data.folder`.
        split: which documents.
        sources: names; empty = every source of the data, in alphabetical order: those that are listed, or without a
            list all there are.

    Raises:
        DataError: a source is missing, or sources were made with different tokenizers.
    """
    root = folder / "shards"
    present = sorted(path.name for path in root.iterdir() if (path / split).is_dir()) if root.is_dir() else []
    if not present:
        raise DataError(f"{folder}: no {split} shards here. Write them with `llmtrain data prepare CONFIG`.")
    listed = read_source_list(folder) if not sources else None
    sources = sources or (sorted(listed.manifests) if listed else present)
    missing = sorted(set(sources) - set(present))
    if missing:
        raise DataError(
            f"{folder}: no {split} shards of {', '.join(missing)}. There are: {', '.join(present)}. Write missing "
            "ones with `llmtrain data prepare CONFIG`."
        )
    opened = {name: ShardedTokens(root / name / split) for name in sources}
    tokenizers: dict[str, Any] = {name: shards.manifest.tokenizer_sha256 for name, shards in opened.items()}
    if len(set(tokenizers.values())) > 1:
        rows = ", ".join(f"{name} {digest[:12]}" for name, digest in tokenizers.items())
        raise DataError(
            f"{folder}: sources were made with different tokenizers: {rows}. Run `llmtrain data prepare CONFIG` "
            "to write them with one, and remove folders in 'shards' that belong to no source any more."
        )
    return opened
