"""Writes the shards of one source and split; memory stays constant whatever the corpus size.

In: documents as token ids with their origins, one or many at a time. Out: shard files, a file of origins beside each,
and at the end the manifest. A folder without a
manifest is unfinished and is written again from the start.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from llmtrain.errors import DataError
from llmtrain.shards.format import HEADER_BYTES, ShardHeader
from llmtrain.shards.manifest import OriginsEntry, ShardEntry, ShardManifest, choose_bytes_per_token, write_manifest
from llmtrain.shards.origins import Origin, OriginsWriter


class ShardWriter:
    """Use as a context manager; leaving it without an exception writes the manifest."""

    def __init__(
        self,
        folder: Path,
        *,
        source: str,
        split: str,
        licence: str,
        vocab_size: int,
        bos_id: int,
        eos_id: int,
        tokenizer_sha256: str,
        provenance: dict[str, Any],
        shard_tokens: int,
    ) -> None:
        """Empty the folder and begin.

        Args:
            folder: holds the shards of this source and split, and nothing else.
            source: name of the source.
            split: `train` or `validation`.
            licence: of the text.
            vocab_size: ids of the tokenizer; decides between uint16 and uint32.
            bos_id: first token of each document.
            eos_id: last token of each document.
            tokenizer_sha256: identity of the tokenizer.
            provenance: where the text comes from; kept in the manifest.
            shard_tokens: a shard is closed by the first document that reaches this size.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder, self._shard_tokens = folder, shard_tokens
        self._bytes_per_token = choose_bytes_per_token(vocab_size)
        self._dtype = ShardHeader(self._bytes_per_token, 0, 0).dtype
        self._manifest = ShardManifest(
            source=source,
            split=split,
            licence=licence,
            vocab_size=vocab_size,
            bos_id=bos_id,
            eos_id=eos_id,
            tokenizer_sha256=tokenizer_sha256,
            provenance=provenance,
            shards=[],
        )
        self._entries: list[ShardEntry] = []
        self._open_shard()

    def write_document(self, ids: NDArray[np.integer[Any]], origin: Origin) -> None:
        """Append one document, `[bos] ids [eos]` included."""
        self.write_documents(ids, np.array([len(ids)]), [origin])

    def write_documents(
        self, flat_ids: NDArray[np.integer[Any]], lengths: NDArray[np.integer[Any]], origins: Sequence[Origin]
    ) -> None:
        """Append many documents.

        Args:
            flat_ids: token ids of all, one document after the other.
            lengths: tokens of each; their sum is the length of `flat_ids`.
            origins: of each.

        Raises:
            DataError: a token id is outside the vocabulary, or a document's id is none.
        """
        ends = np.cumsum(lengths, dtype=np.uint64)
        if len(flat_ids) and not 0 <= int(flat_ids.min()) <= int(flat_ids.max()) < self._manifest.vocab_size:
            raise DataError(
                f"{self._folder}: token ids from {flat_ids.min()} to {flat_ids.max()} for a vocabulary of "
                f"{self._manifest.vocab_size}. Encode the text with the tokenizer that the shards name."
            )
        first = 0
        while first < len(ends):
            base = int(ends[first - 1]) if first else 0
            room = self._shard_tokens - self._token_count
            # The shard takes documents up to and with the one that fills it.
            stop = min(int(np.searchsorted(ends, base + room)) + 1, len(ends))
            piece = np.asarray(flat_ids[base : int(ends[stop - 1])], dtype=self._dtype)
            self._file.write(piece.tobytes())
            self._origins.write(origins[first:stop])
            self._ends.append(ends[first:stop] - np.uint64(base) + np.uint64(self._token_count))
            self._token_count += len(piece)
            if self._token_count >= self._shard_tokens:
                self._close_shard()
                self._open_shard()
            first = stop

    def close(self) -> ShardManifest:
        """Finish the last shard and write the manifest.

        Raises:
            DataError: there was not a single document.
        """
        if self._token_count or not self._entries:
            self._close_shard()
        else:
            self._abandon_shard()
        if not sum(entry.document_count for entry in self._entries):
            raise DataError(
                f"{self._folder}: not a single document of source '{self._manifest.source}' for this split."
            )
        manifest = self._manifest.model_copy(update={"shards": self._entries})
        write_manifest(self._folder, manifest)
        return manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._abandon_shard()

    def _open_shard(self) -> None:
        self._path = self._folder / f"shard-{len(self._entries):05d}.tokens"
        self._file = self._path.open("w+b")
        self._file.write(b"\0" * HEADER_BYTES)
        self._origins = OriginsWriter(self._path.with_suffix(".documents"))
        self._token_count = 0
        self._ends: list[NDArray[np.uint64]] = []

    def _close_shard(self) -> None:
        ends = np.concatenate([*self._ends, np.empty(0, np.uint64)])
        header = ShardHeader(self._bytes_per_token, self._token_count, len(ends))
        self._file.write(b"\0" * (header.ends_offset - self._file.tell()))
        self._file.write(ends.tobytes())
        self._file.seek(0)
        self._file.write(header.encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        self._file.close()
        origins_bytes, origins_digest = self._origins.close()
        self._entries.append(
            ShardEntry(
                file=self._path.name,
                bytes=header.file_bytes,
                token_count=self._token_count,
                document_count=len(ends),
                sha256=digest,
                origins=OriginsEntry(file=self._origins.path.name, bytes=origins_bytes, sha256=origins_digest),
            )
        )

    def _abandon_shard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
        self._origins.abandon()
