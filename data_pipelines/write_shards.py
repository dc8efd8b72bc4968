"""Cleaned documents of one source -> token shards of both splits, in one pass and constant memory.

documents -> batches -> SentencePiece, a batch per thread -> [bos] ids [eos] -> shard files and origins, in their order.
While threads encode, this one reads ahead and writes. Each different word of a batch is encoded once: text is full of
words that came before. A document is held out for validation by its id, the hash of its text, so it is in the same
split in every corpus.
"""

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

from data_pipelines.document import Document
from data_pipelines.fill_in_the_middle import Part, rearrange
from llmtrain.config.corpus import FillInTheMiddle
from llmtrain.errors import DataError
from llmtrain.shards.manifest import ShardManifest
from llmtrain.shards.origins import Origin
from llmtrain.shards.writer import ShardWriter
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from llmtrain.tokenizer.special_tokens import FILL_IN_THE_MIDDLE_SYMBOLS

_BATCH_CHARACTERS = 1_000_000
# Batches under way per thread: enough that no thread waits while a shard is synced or a long document is encoded.
_BATCHES_AHEAD = 3
_SPLITS = ("train", "validation")

_SPACE = "\u2581"  # SentencePiece's; spaces become it
_WORD = re.compile(f"[ {_SPACE}]*[^ {_SPACE}]+|[ {_SPACE}]+")

_Split = Callable[[str], list[str]]

_Tokens = tuple[NDArray[np.uint32], NDArray[np.int64]]
"""Ids of documents one after the other, and the length of each."""
_Encoded = dict[str, tuple[NDArray[np.uint32], NDArray[np.int64], list[Origin]]]
"""The same with the origins of the documents, by split."""


def is_validation(document_id: str, fraction: float) -> bool:
    """Whether a document is held out; depends on its id alone.

    Args:
        document_id: hexadecimal digits of a hash of the text.
        fraction: share of documents to hold out.
    """
    return int(document_id[-16:], 16) < fraction * 2**64


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
    threads: int,
    fill_in_the_middle: FillInTheMiddle | None = None,
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
        threads: that encode; the result does not depend on it.
        fill_in_the_middle: reorders some of the training documents.
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
    encoder = _Encoder(tokenizer, validation_fraction, fill_in_the_middle)

    try:
        for batch, encoded in _map_ahead(encoder.encode, _batches(documents), threads):
            for split, rows in encoded.items():
                writers[split].write_documents(*rows)
            progress(len(batch), sum(len(document.text) for document in batch))
        return {split: writer.close() for split, writer in writers.items()}
    except OSError as error:
        for split in _SPLITS:
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


def _map_ahead(
    encode: Callable[[list[Document]], _Encoded], batches: Iterable[list[Document]], threads: int
) -> Iterator[tuple[list[Document], _Encoded]]:
    """Each batch with its tokens, in order. SentencePiece frees the interpreter lock, so threads are enough."""
    running: deque[tuple[list[Document], Future[_Encoded]]] = deque()
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


class _Encoder:
    """Encodes batches of documents; nothing in it changes, so threads share it."""

    def __init__(self, tokenizer: Tokenizer, validation_fraction: float, config: FillInTheMiddle | None) -> None:
        self._tokenizer, self._validation_fraction, self._config = tokenizer, validation_fraction, config
        self._split_words = _choose_split(tokenizer)
        symbols = FILL_IN_THE_MIDDLE_SYMBOLS if config else ()
        self._special_ids = [tokenizer.bos_id, tokenizer.eos_id, *map(tokenizer.find_control_id, symbols)]
        self._sentinels = {symbol: 2 + i for i, symbol in enumerate(symbols)}

    def encode(self, batch: list[Document]) -> _Encoded:
        """Tokens and origins of a batch by split; a split without documents is left out."""
        numbers: defaultdict[str, int] = defaultdict(itertools.count(len(self._special_ids)).__next__)
        words: dict[str, list[list[int]]] = {split: [] for split in _SPLITS}
        origins: dict[str, list[Origin]] = {split: [] for split in _SPLITS}
        for document in batch:
            split, parts = self._arrange(document)
            row = [0]
            for part in parts:
                if part.is_sentinel:
                    row.append(self._sentinels[part.text])
                else:
                    row += map(numbers.__getitem__, self._split_words(part.text))
            words[split].append([*row, 1])
            origins[split].append(Origin(document.id, document.origin, document.licence, document.language))
        ids = [*([special] for special in self._special_ids), *self._tokenizer.encode_batch(list(numbers), threads=1)]
        flat_ids, lengths = _flatten(ids, np.uint32)
        return {split: (*_spell_out(rows, flat_ids, lengths), origins[split]) for split, rows in words.items() if rows}

    def _arrange(self, document: Document) -> tuple[str, list[Part]]:
        """Split of a document, and its text in the order in which it is tokenized."""
        if is_validation(document.id, self._validation_fraction):
            return "validation", [Part(document.text)]
        return "train", rearrange(document.id, document.text, self._config)


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
