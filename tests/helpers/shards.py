"""Shards of real text for tests: bytes of the standard library as token ids."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrain.shards.origins import Origin
from llmtrain.shards.reader import ShardedTokens
from llmtrain.shards.writer import ShardWriter
from tests.helpers.texts import stdlib_texts

BOS_ID, EOS_ID, FIRST_BYTE_ID, VOCAB_SIZE = 1, 2, 4, 300
SETTINGS: dict[str, Any] = {
    "source": "web",
    "split": "train",
    "licence": "PSF-2.0",
    "vocab_size": VOCAB_SIZE,
    "bos_id": BOS_ID,
    "eos_id": EOS_ID,
    "tokenizer_sha256": "0" * 64,
    "provenance": {"text": "standard library"},
    "shard_tokens": 1000,
}


def make_documents(count: int, first: int = 0) -> list[NDArray[np.int64]]:
    """Functions of the standard library as token ids, `[bos] bytes [eos]`."""
    pieces = [piece for text in stdlib_texts() for piece in text.split("\n\n") if piece.strip()]
    return [
        np.array([BOS_ID, *(byte + FIRST_BYTE_ID for byte in piece.encode()[:200]), EOS_ID])
        for piece in pieces[first : first + count]
    ]


def make_origin(number: int) -> Origin:
    """Where document `number` is said to come from; ids do not ascend with the numbers."""
    document_id = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    return Origin(document_id, f"crawl/{number}.html", "PSF-2.0" if number % 2 else "CC0-1.0", "en")


def write_split(folder: Path, documents: Sequence[NDArray[np.int64]], **changes: Any) -> ShardedTokens:
    """Write documents and open what was written."""
    with ShardWriter(folder, **(SETTINGS | changes)) as writer:
        for number, document in enumerate(documents):
            writer.write_document(document, make_origin(number))
    return ShardedTokens(folder)
