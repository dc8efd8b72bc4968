"""Cleaned documents -> a SentencePiece tokenizer with a proven Hugging Face twin.

SentencePiece is told to change nothing: identity normalisation, no dummy prefix, all whitespace kept, bytes for what it
does not know. It is trained on whole documents with their newlines, so that pieces may hold line ends and indentation;
split at newlines, as its command line does, it would learn none.
"""

import hashlib
import heapq
import importlib.metadata
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from data_pipelines.document import hash_file
from llmtrain.config.corpus import TokenizerConfig
from llmtrain.errors import DataError
from llmtrain.shards.manifest import write_atomically
from llmtrain.tokenizer.fast_conversion import check_parity, convert_to_fast, save_fast
from llmtrain.tokenizer.sentencepiece_tokenizer import MANIFEST_NAME, MODEL_NAME, Tokenizer
from llmtrain.tokenizer.special_tokens import BOS_ID, CONTROL_SYMBOLS, EOS_ID, PAD_ID, UNKNOWN_ID

# SentencePiece skips longer "sentences" without a word; longer documents are cut at line ends.
MAX_PIECE_BYTES = 16_384
_PARITY_TEXTS = 200
_SCORE_STEPS = 32
_HASH_BYTES = 16
_SETTINGS: dict[str, Any] = {
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "split_digits": True,
    "character_coverage": 0.9999,
    "unk_id": UNKNOWN_ID,
    "bos_id": BOS_ID,
    "eos_id": EOS_ID,
    "pad_id": PAD_ID,
    "control_symbols": list(CONTROL_SYMBOLS),
}

Texts = Callable[[], Iterator[str]]


def train_tokenizer(texts_by_source: Mapping[str, Texts], config: TokenizerConfig, folder: Path) -> Tokenizer:
    """Train, prove the twin, and write the folder; it appears whole or not at all.

    Args:
        texts_by_source: for each source a function that starts reading its documents anew.
        config: section `corpus.tokenizer`.
        folder: `data.folder/tokenizer`.

    Raises:
        DataError: there is too little text for so many pieces.
    """
    sample = list(draw_sample(texts_by_source, config.train_characters))
    model = _train_model(sample, config)
    tokenizer = Tokenizer(model)
    texts = [text[:2000] for text in sample[:: max(1, len(sample) // _PARITY_TEXTS)]]
    compared = check_parity(tokenizer, convert_to_fast(tokenizer), texts)
    manifest: dict[str, Any] = {
        "sha256": tokenizer.sha256,
        "algorithm": config.algorithm,
        "vocab_size": tokenizer.vocab_size,
        "train_characters": sum(map(len, sample)),
        "train_text_sha256": hashlib.sha256("\0".join(sample).encode()).hexdigest(),
        "settings": _SETTINGS,
        "sentencepiece": importlib.metadata.version("sentencepiece"),
        "parity_texts": compared,
    }
    staging = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        (staging / MODEL_NAME).write_bytes(model)
        save_fast(tokenizer, staging)
        manifest["files"] = {
            path.name: hash_file(path) for path in sorted(staging.iterdir()) if path.name != MODEL_NAME
        }
        write_atomically(staging / MANIFEST_NAME, (json.dumps(manifest, indent=1) + "\n").encode())
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return tokenizer


def draw_sample(texts_by_source: Mapping[str, Texts], characters: int) -> Iterator[str]:
    """Pieces of documents, an equal number of characters from each source that has enough, in a fixed order.

    Which documents are drawn depends on their text alone: those with the smallest hash first, so the sample does not
    follow the order of files. The last one is cut, so there are never more characters than asked for.

    Args:
        texts_by_source: for each source a function that starts reading its documents.
        characters: in all.
    """
    smallest = {name: _Smallest(texts(), characters) for name, texts in texts_by_source.items()}
    budget, left = characters, len(smallest)
    for name in sorted(smallest, key=lambda name: smallest[name].characters):
        chosen = smallest[name].choose(budget // left)
        budget, left = budget - sum(chosen.values()), left - 1
        for text in texts_by_source[name]():
            limit = chosen.pop(hash_text(text), 0)
            if limit:
                yield from cut_at_lines(text[:limit])


class _Smallest:
    """Documents of a source with the smallest hashes, no more than are needed for so many characters.

    Memory is bounded by the characters asked for, not by the size of the source.
    """

    def __init__(self, texts: Iterator[str], characters: int) -> None:
        self.characters = 0
        """Of all documents, each text once, as far as they are needed."""
        self._sizes: dict[int, int] = {}
        heap: list[int] = []  # of negated hashes: the largest in front
        for text in texts:
            number = int.from_bytes(hash_text(text))
            is_full = self.characters >= characters
            if not text or number in self._sizes or (is_full and number > -heap[0]):
                continue
            self._sizes[number] = len(text)
            self.characters += len(text)
            heapq.heappush(heap, -number)
            while self.characters - self._sizes[-heap[0]] >= characters:
                self.characters -= self._sizes.pop(-heapq.heappop(heap))

    def choose(self, characters: int) -> dict[bytes, int]:
        """By hash how much is taken of each document; the last one is cut."""
        chosen: dict[bytes, int] = {}
        for number, size in sorted(self._sizes.items()):
            if characters <= 0:
                break
            chosen[number.to_bytes(_HASH_BYTES)] = min(size, characters)
            characters -= size
        return chosen


def hash_text(text: str) -> bytes:
    """Identity of a text."""
    return hashlib.sha256(text.encode()).digest()[:_HASH_BYTES]


def cut_at_lines(text: str) -> Iterator[str]:
    """Pieces of at most MAX_PIECE_BYTES, cut at line ends where possible; joined they give the text."""
    piece: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        for part in _cut_line(line):
            length = len(part.encode())
            if size + length > MAX_PIECE_BYTES:
                yield "".join(piece)
                piece, size = [], 0
            piece.append(part)
            size += length
    if piece:
        yield "".join(piece)


def _cut_line(line: str) -> Iterator[str]:
    step = MAX_PIECE_BYTES // 4  # a character has at most four bytes
    if len(line.encode()) <= MAX_PIECE_BYTES:
        yield line
    else:
        yield from (line[i : i + step] for i in range(0, len(line), step))


def _train_model(sample: list[str], config: TokenizerConfig) -> bytes:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sample),
            model_writer=model,
            model_type=config.algorithm,
            vocab_size=config.vocab_size,
            max_sentence_length=MAX_PIECE_BYTES,
            # More threads give another model: the result must not depend on the machine.
            num_threads=1,
            minloglevel=2,
            **_SETTINGS,
        )
    except (RuntimeError, ValueError) as error:
        characters = sum(map(len, sample))
        raise DataError(
            f"corpus.tokenizer.vocab_size = {config.vocab_size}: SentencePiece could not train it on {characters:,} "
            f"characters: {' '.join(str(error).split())[-300:]}. Choose a smaller vocabulary or give more text."
        ) from error
    return _make_sums_exact(model.getvalue()) if config.algorithm == "unigram" else model.getvalue()


def _make_sums_exact(model: bytes) -> bytes:
    """Round unigram scores so that a sum of them is exact in float32, whatever its order.

    Runs of spaces have many segmentations of equal probability. SentencePiece adds in float32, its twin in float64, so
    with raw scores rounding would break such ties differently. Exact up to some 60,000 tokens in one text.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    for piece in proto.pieces:
        piece.score = round(piece.score * _SCORE_STEPS) / _SCORE_STEPS
    exact: bytes = proto.SerializeToString()
    return exact
