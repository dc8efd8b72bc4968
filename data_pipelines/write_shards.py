"""Cleaned documents of one source -> token shards of both splits, in one pass and constant memory.

texts -> batches -> SentencePiece on all threads -> [bos] ids [eos] -> shard files. A document is held out for
validation by the hash of its text, so it is in the same split in every corpus.
"""

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrain.errors import DataError
from llmtrain.shards.manifest import ShardManifest
from llmtrain.shards.writer import ShardWriter
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_BATCH_CHARACTERS = 4_000_000
_SPLITS = ("train", "validation")


def is_validation(text: str, fraction: float) -> bool:
    """Whether a document is held out; depends on its text alone.

    Args:
        text: the cleaned document.
        fraction: share of documents to hold out.
    """
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[-8:], "big")
    return number < fraction * 2**64


def write_shards(
    texts: Iterable[str],
    folder: Path,
    tokenizer: Tokenizer,
    *,
    source: str,
    licence: str,
    provenance: dict[str, Any],
    validation_fraction: float,
    shard_tokens: int,
    threads: int,
    progress: Callable[[int, int], None] = lambda documents, characters: None,
) -> dict[str, ShardManifest]:
    """Tokenize one source.

    Args:
        texts: cleaned documents.
        folder: `data.folder/shards/<source>`; its splits are written anew.
        tokenizer: of this corpus.
        source: name of the source.
        licence: of the text.
        provenance: kept in the manifests.
        validation_fraction: share of documents held out.
        shard_tokens: size of a shard.
        threads: SentencePiece's; the result does not depend on it.
        progress: told how many documents and characters were written.

    Returns:
        The manifest of each split.

    Raises:
        DataError: a split would be empty, or the disk is full.
    """
    writers = {
        split: ShardWriter(
            folder / split,
            source=source,
            split=split,
            licence=licence,
            vocab_size=tokenizer.vocab_size,
            bos_id=tokenizer.bos_id,
            eos_id=tokenizer.eos_id,
            tokenizer_sha256=tokenizer.sha256,
            provenance=provenance,
            shard_tokens=shard_tokens,
        )
        for split in _SPLITS
    }
    try:
        for batch in _batches(texts):
            held_out = [is_validation(text, validation_fraction) for text in batch]
            ids = tokenizer.encode_batch(batch, threads)
            for split, wanted in zip(_SPLITS, (False, True), strict=True):
                chosen = [row for row, is_held_out in zip(ids, held_out, strict=True) if is_held_out == wanted]
                if chosen:
                    writers[split].write_documents(*_flatten(chosen, tokenizer))
            progress(len(batch), sum(map(len, batch)))
        return {split: writer.close() for split, writer in writers.items()}
    except OSError as error:
        raise DataError(
            f"{folder}: could not be written: {error}. Free some space, then run `llmtrain data prepare` again: "
            "it continues with this source."
        ) from error


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _flatten(rows: Sequence[list[int]], tokenizer: Tokenizer) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """All documents one after the other, each with bos and eos, and their lengths."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows)) + 2
    ends = np.cumsum(lengths)
    flat = np.empty(int(ends[-1]), np.uint32)
    is_text = np.ones(len(flat), bool)
    is_text[ends - 1] = False
    is_text[ends - lengths] = False
    flat[ends - 1], flat[ends - lengths] = tokenizer.eos_id, tokenizer.bos_id
    flat[is_text] = np.fromiter(itertools.chain.from_iterable(rows), np.uint32, len(flat) - 2 * len(rows))
    return flat, lengths
