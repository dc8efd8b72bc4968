"""Cleaned documents of one source -> token shards of both splits, in one pass and constant memory.

documents -> batches -> encoded, a batch per worker process -> shard files and origins, in the order of the documents

While workers encode, this process reads ahead and writes. Threads would wait for each other: cutting text into words
and numbering them holds the interpreter lock.
"""

import itertools
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from data_pipelines.document import Document
from data_pipelines.encode import Encoded, Encoder
from data_pipelines.splits import SPLITS
from data_pipelines.worker_process import end_with_parent, worker_pool
from llmtrain.config.corpus import Accelerator, FillInTheMiddle
from llmtrain.errors import DataError
from llmtrain.shards.manifest import ShardManifest
from llmtrain.shards.writer import ShardWriter
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer

_BATCH_CHARACTERS = 1_000_000
# Batches under way per worker: enough that none waits while a shard is synced or a long document is encoded. Fewer are
# encoded sooner than a process is started.
_BATCHES_AHEAD = 3


def write_shards(
    documents: Iterable[Document],
    folder: Path,
    tokenizer: Tokenizer,
    *,
    source: str,
    licence: str,
    provenance: dict[str, Any],
    validation_fraction: float,
    shard_tokens: int,
    workers: int,
    fill_in_the_middle: FillInTheMiddle | None = None,
    accelerator: Accelerator = None,
    progress: Callable[[int, int], None] = lambda documents, characters: None,
) -> dict[str, ShardManifest]:
    """Tokenize one source.

    Args:
        documents: cleaned, each with its id.
        folder: `data.folder/shards/<source>`; its splits are written anew.
        tokenizer: of this corpus.
        source: name of the source.
        licence: of the text.
        provenance: kept in the manifests.
        validation_fraction: share of documents held out.
        shard_tokens: size of a shard.
        workers: processes that encode; with one, this process does it. The result does not depend on it.
        fill_in_the_middle: reorders some of the training documents.
        accelerator: encodes in place of SentencePiece; the result does not depend on it.
        progress: told how many documents and characters were written.

    Returns:
        The manifest of each split.

    Raises:
        DataError: a split would be empty, the disk is full, or the accelerator is not exact.
        MachineError: the accelerator is not installed.
        MemoryExhaustedError: the system ended a worker.
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
        for split in SPLITS
    }
    build = partial(Encoder, tokenizer, validation_fraction, fill_in_the_middle, accelerator)

    try:
        for batch, encoded in _encode_ahead(build, _batches(documents), workers):
            for split, rows in encoded.items():
                writers[split].write_documents(*rows)
            progress(len(batch), sum(len(document.text) for document in batch))
        return {split: writer.close() for split, writer in writers.items()}
    except OSError as error:
        for split in SPLITS:
            shutil.rmtree(folder / split, ignore_errors=True)
        raise DataError(
            f"{folder}: could not be written: {error}. Free some space, then run `llmtrain data prepare` again: "
            "it continues with this source."
        ) from error


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode_ahead(
    build: Callable[[], Encoder], batches: Iterator[list[Document]], workers: int
) -> Iterator[tuple[list[Document], Encoded]]:
    """Each batch with its tokens, in order. A process is started for every three batches, up to as many as workers."""
    first = list(itertools.islice(batches, workers * _BATCHES_AHEAD))
    batches, count = itertools.chain(first, batches), len(first) // _BATCHES_AHEAD
    del first  # or their text would stay in memory
    if count < 2:
        encoder = build()
        yield from ((batch, encoder.encode(batch)) for batch in batches)
        return
    with worker_pool(count, _start_worker, build, workers=workers, after="it continues with this source") as pool:
        running: deque[tuple[list[Document], Future[Encoded]]] = deque()
        for batch in batches:
            running.append((batch, pool.submit(_encode, batch)))
            if len(running) == count * _BATCHES_AHEAD:
                batch, future = running.popleft()
                yield batch, future.result()
        for batch, future in running:
            yield batch, future.result()


_build: Callable[[], Encoder]
_encoder: Encoder | None = None


def _start_worker(build: Callable[[], Encoder]) -> None:
    global _build
    end_with_parent()
    _build = build


def _encode(batch: list[Document]) -> Encoded:
    """Encode in a worker. Its encoder is built here, where an error can be told, not when the worker starts."""
    global _encoder
    if _encoder is None:
        _encoder = _build()
    return _encoder.encode(batch)
