"""Cleaned documents of one source -> token shards of both splits, in one pass and constant memory.

texts -> batches -> SentencePiece, a batch per thread -> [bos] ids [eos] -> shard files, in the order of the texts.
While threads encode, this one reads ahead and writes. A document is held out for validation by the hash of its text, so
it is in the same split in every corpus.
"""

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrain.errors import DataError
from llmtrain.shards.manifest import ShardManifest
from llmtrain.shards.writer import ShardWriter
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer

_BATCH_CHARACTERS = 500_000
# Batches under way per thread: enough that no thread waits while a shard is synced or a long document is encoded.
_BATCHES_AHEAD = 4
_SPLITS = ("train", "validation")

_Tokens = tuple[NDArray[np.uint32], NDArray[np.int64]]
"""Ids of documents one after the other, and the length of each."""


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
        threads: that encode; the result does not depend on it.
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
        for batch, tokens in _encode_in_order(_batches(texts), tokenizer, validation_fraction, threads):
            for split, split_tokens in tokens.items():
                writers[split].write_documents(*split_tokens)
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


def _encode_in_order(
    batches: Iterable[list[str]], tokenizer: Tokenizer, validation_fraction: float, threads: int
) -> Iterator[tuple[list[str], dict[str, _Tokens]]]:
    """Each batch with its tokens by split. SentencePiece frees the interpreter lock, so threads are enough."""
    running: deque[tuple[list[str], Future[dict[str, _Tokens]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            running.append((batch, pool.submit(_encode, batch, tokenizer, validation_fraction)))
            if len(running) == threads * _BATCHES_AHEAD:
                first, future = running.popleft()
                yield first, future.result()
        for batch, future in running:
            yield batch, future.result()


def _encode(batch: list[str], tokenizer: Tokenizer, validation_fraction: float) -> dict[str, _Tokens]:
    """Tokens of a batch by split; a split without documents is left out."""
    rows: dict[str, list[list[int]]] = {split: [] for split in _SPLITS}
    for text, ids in zip(batch, tokenizer.encode_batch(batch, threads=1), strict=True):
        rows["validation" if is_validation(text, validation_fraction) else "train"].append(ids)
    return {split: _flatten(chosen, tokenizer) for split, chosen in rows.items() if chosen}


def _flatten(rows: Sequence[list[int]], tokenizer: Tokenizer) -> _Tokens:
    """All documents, each with bos and eos."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows)) + 2
    ends = np.cumsum(lengths)
    flat = np.empty(int(ends[-1]), np.uint32)
    is_text = np.ones(len(flat), bool)
    is_text[ends - 1] = False
    is_text[ends - lengths] = False
    flat[ends - 1], flat[ends - lengths] = tokenizer.eos_id, tokenizer.bos_id
    flat[is_text] = np.fromiter(itertools.chain.from_iterable(rows), np.uint32, len(flat) - 2 * len(rows))
    return flat, lengths
