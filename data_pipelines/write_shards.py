"""Cleaned documents of one source -> token shards of both splits, in one pass and constant memory.

texts -> batches -> SentencePiece, a batch per thread -> [bos] ids [eos] -> shard files, in the order of the texts.
While threads encode, this one reads ahead and writes. Each different word of a batch is encoded once: text is full of
words that came before. A document is held out for validation by the hash of its text, so it is in the same split in
every corpus.
"""

import hashlib
import itertools
import re
import shutil
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentencepiece import sentencepiece_model_pb2

from llmtrain.errors import DataError
from llmtrain.shards.manifest import ShardManifest
from llmtrain.shards.writer import ShardWriter
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer

_BATCH_CHARACTERS = 1_000_000
# Batches under way per thread: enough that no thread waits while a shard is synced or a long document is encoded.
_BATCHES_AHEAD = 3
_SPLITS = ("train", "validation")

_SPACE = "\u2581"  # SentencePiece's; spaces become it
_WORD = re.compile(f"[ {_SPACE}]*[^ {_SPACE}]+|[ {_SPACE}]+")

_Split = Callable[[str], list[str]]

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
    split_words = _choose_split(tokenizer)

    def encode(batch: list[str]) -> dict[str, _Tokens]:
        return _encode(batch, tokenizer, split_words, validation_fraction)

    try:
        for batch, tokens in _map_ahead(encode, _batches(texts), threads):
            for split, split_tokens in tokens.items():
                writers[split].write_documents(*split_tokens)
            progress(len(batch), sum(map(len, batch)))
        return {split: writer.close() for split, writer in writers.items()}
    except OSError as error:
        for split in _SPLITS:
            shutil.rmtree(folder / split, ignore_errors=True)
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


def _map_ahead(
    encode: Callable[[list[str]], dict[str, _Tokens]], batches: Iterable[list[str]], threads: int
) -> Iterator[tuple[list[str], dict[str, _Tokens]]]:
    """Each batch with its tokens, in order. SentencePiece frees the interpreter lock, so threads are enough."""
    running: deque[tuple[list[str], Future[dict[str, _Tokens]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            running.append((batch, pool.submit(encode, batch)))
            if len(running) == threads * _BATCHES_AHEAD:
                first, future = running.popleft()
                yield first, future.result()
        for batch, future in running:
            yield batch, future.result()


def _choose_split(tokenizer: Tokenizer) -> _Split:
    """How to cut a text so that the ids of its parts, one after the other, are the ids of the text.

    Where no piece of the vocabulary goes on with a space, nothing is ever merged over the start of a run of spaces.
    """
    model = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.processor.serialized_model_proto())
    settings = model.normalizer_spec
    changes_text = settings.name != "identity" or settings.add_dummy_prefix or settings.remove_extra_whitespaces
    if changes_text or any(_SPACE in piece.piece.lstrip(_SPACE) for piece in model.pieces):
        return lambda text: [text]
    return _WORD.findall


def _encode(
    batch: list[str], tokenizer: Tokenizer, split_words: _Split, validation_fraction: float
) -> dict[str, _Tokens]:
    """Tokens of a batch by split; a split without documents is left out."""
    numbers: defaultdict[str, int] = defaultdict(itertools.count(2).__next__)  # after those of bos and eos
    documents: dict[str, list[list[int]]] = {split: [] for split in _SPLITS}
    for text in batch:
        words = [0, *map(numbers.__getitem__, split_words(text)), 1]
        documents["validation" if is_validation(text, validation_fraction) else "train"].append(words)
    ids = [[tokenizer.bos_id], [tokenizer.eos_id], *tokenizer.encode_batch(list(numbers), threads=1)]
    flat_ids, lengths = _flatten(ids, np.uint32)
    return {split: _spell_out(rows, flat_ids, lengths) for split, rows in documents.items() if rows}


def _spell_out(documents: list[list[int]], flat_ids: NDArray[np.uint32], lengths: NDArray[np.int64]) -> _Tokens:
    """From documents as numbers of words to their tokens.

    Args:
        documents: numbers of the words of each.
        flat_ids: ids of all words, one after the other.
        lengths: ids of each word.
    """
    words, word_counts = _flatten(documents, np.int64)
    word_lengths = lengths[words]
    ends = np.cumsum(word_lengths)
    starts = np.cumsum(lengths) - lengths
    places = np.arange(ends[-1]) + np.repeat(starts[words] - (ends - word_lengths), word_lengths)
    document_ends = ends[np.cumsum(word_counts) - 1]
    return flat_ids[places], np.diff(document_ends, prepend=0)


def _flatten(rows: Sequence[Sequence[int]], dtype: type[np.integer[Any]]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """All rows one after the other, and the length of each."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return np.fromiter(itertools.chain.from_iterable(rows), dtype, int(lengths.sum())), lengths
