"""Documents -> tokens and origins, a batch at a time; the same on any number of processes.

documents -> split and order of parts -> words -> each different word's ids -> [bos] ids [eos]

Each different word of a batch is encoded once: text is full of words that came before. A document is held out for
validation by its id, the hash of its text, so it is in the same split in every corpus.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentencepiece import sentencepiece_model_pb2

from data_pipelines.document import Document
from data_pipelines.fill_in_the_middle import Part, rearrange
from data_pipelines.gigatoken_encoder import GigatokenEncoder
from data_pipelines.splits import SPLITS, is_validation
from llmtrain.config.corpus import Accelerator, FillInTheMiddle
from llmtrain.shards.format import ShardHeader
from llmtrain.shards.manifest import choose_bytes_per_token
from llmtrain.shards.origins import Origin
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from llmtrain.tokenizer.special_tokens import FILL_IN_THE_MIDDLE_SYMBOLS

_SPACE = "\u2581"  # SentencePiece's; spaces become it
_WORD = re.compile(f"[ {_SPACE}]*[^ {_SPACE}]+|[ {_SPACE}]+")

Ids = NDArray[np.unsignedinteger[Any]]
_Tokens = tuple[Ids, NDArray[np.int64]]
"""Ids of texts one after the other, and the length of each."""
Encoded = dict[str, tuple[Ids, NDArray[np.int64], list[Origin]]]
"""The same of documents, with their origins, by split."""


class Encoder:
    """Encodes batches of documents; what it gives for one does not depend on those before."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        validation_fraction: float,
        fill_in_the_middle: FillInTheMiddle | None = None,
        accelerator: Accelerator = None,
    ) -> None:
        """Load the accelerator, if there is one.

        Raises:
            MachineError: the accelerator is not installed.
            DataError: it does not give the ids of SentencePiece.
        """
        self._tokenizer, self._validation_fraction, self._config = tokenizer, validation_fraction, fill_in_the_middle
        self._gigatoken = GigatokenEncoder(tokenizer) if accelerator else None
        self._split_words = _leave_whole if accelerator else _choose_split(tokenizer)
        self._dtype = ShardHeader(choose_bytes_per_token(tokenizer.vocab_size), 0, 0).dtype
        symbols = FILL_IN_THE_MIDDLE_SYMBOLS if fill_in_the_middle else ()
        self._special_ids = [tokenizer.bos_id, tokenizer.eos_id, *map(tokenizer.find_control_id, symbols)]
        self._sentinels = {symbol: 2 + i for i, symbol in enumerate(symbols)}

    def encode(self, batch: Sequence[Document]) -> Encoded:
        """Tokens and origins of a batch by split; a split without documents is left out."""
        numbers: defaultdict[str, int] = defaultdict(itertools.count(len(self._special_ids)).__next__)
        words: dict[str, list[list[int]]] = {split: [] for split in SPLITS}
        origins: dict[str, list[Origin]] = {split: [] for split in SPLITS}
        for document in batch:
            split, parts = self._arrange(document)
            row = [0]
            for part in parts:
                if part.is_sentinel:
                    row.append(self._sentinels[part.text])
                else:
                    row += map(numbers.__getitem__, self._split_words(part.text))
            words[split].append([*row, 1])
            origins[split].append(_describe(document))
        flat_ids, lengths = self._encode_words(list(numbers))
        return {split: (*_spell_out(rows, flat_ids, lengths), origins[split]) for split, rows in words.items() if rows}

    def _arrange(self, document: Document) -> tuple[str, list[Part]]:
        """Split of a document, and its text in the order in which it is tokenized."""
        if is_validation(document.id, self._validation_fraction):
            return "validation", [Part(document.text)]
        return "train", rearrange(document.id, document.text, self._config)

    def _encode_words(self, words: list[str]) -> _Tokens:
        """Ids of the special tokens that documents are made with, then of the words."""
        encode = self._gigatoken.encode if self._gigatoken else self._encode_with_sentencepiece
        flat_ids, lengths = encode(words)
        specials = np.array(self._special_ids, self._dtype)
        return np.concatenate([specials, flat_ids.astype(self._dtype)]), np.concatenate(
            [np.ones(len(specials), np.int64), lengths]
        )

    def _encode_with_sentencepiece(self, words: list[str]) -> _Tokens:
        return _flatten(self._tokenizer.encode_batch(words, threads=1), np.uint32)


def _choose_split(tokenizer: Tokenizer) -> Callable[[str], list[str]]:
    """How to cut a text so that the ids of its parts, one after the other, are the ids of the text.

    Where no piece of the vocabulary goes on with a space, nothing is ever merged over the start of a run of spaces.
    """
    model = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.processor.serialized_model_proto())
    settings = model.normalizer_spec
    changes_text = settings.name != "identity" or settings.add_dummy_prefix or settings.remove_extra_whitespaces
    if changes_text or any(_SPACE in piece.piece.lstrip(_SPACE) for piece in model.pieces):
        return _leave_whole
    return _WORD.findall


def _leave_whole(text: str) -> list[str]:
    return [text]


def _spell_out(documents: list[list[int]], flat_ids: Ids, lengths: NDArray[np.int64]) -> _Tokens:
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


def _describe(document: Document) -> Origin:
    place = document.place if document.place != document.origin else ""
    return Origin(document.id, document.origin, document.licence, document.language, place)
