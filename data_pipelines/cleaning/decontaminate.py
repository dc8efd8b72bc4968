"""Step `decontaminate`: documents that hold pieces of evaluation sets.

A document and an item that share an n-gram of 13 words share text. Words are compared in lower case and without
punctuation; each character of Chinese and Japanese is a word. An n-gram becomes one number of 64 bits, all numbers of
the evaluation sets lie sorted in one array, and a document is looked up as a whole.

Source: Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C. Unlike there, the whole document goes,
and n-grams are not spared for being frequent.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from data_pipelines.cleaning.evaluation_sets import find_files, hash_files, read_items
from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import DecontaminateStep
from llmtrain.errors import DataError

Hashes = npt.NDArray[np.uint64]

_APOSTROPHES = str.maketrans("", "", "'\u2019\u02bc")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Decontaminate:
    """Drops or reports contaminated documents."""

    def __init__(self, config: DecontaminateStep) -> None:
        self._reports = config.action == "report"
        contents = tuple(hash_files(config.against))
        self._hashes = _load(
            contents, tuple(config.against), tuple(config.text_fields), config.ngram_words, config.min_item_words
        )

    def __call__(self, subject: Subject) -> str | None:
        """Why the document is dropped; None when it stays."""
        words = hash_words(subject.text)
        if not any(_is_found(hash_ngrams(words, n), hashes) for n, hashes in self._hashes.items()):
            return None
        if self._reports:
            subject.notes.append("decontaminate: contaminated")
            return None
        return "decontaminate: contaminated"


def describe_evaluation_files(against: Sequence[str]) -> list[str]:
    """Identity of what the evaluation sets hold, wherever they lie.

    Raises:
        DataError: a file is missing or unreadable.
    """
    return hash_files(against)


def hash_words(text: str) -> Hashes:
    """A number for each word of a text, equal for words that differ in case and apostrophes only; shape [words]."""
    words = _WORD.findall(text.lower().translate(_APOSTROPHES))
    numbers = {word: _hash_word(word) for word in dict.fromkeys(words)}
    return np.fromiter(map(numbers.__getitem__, words), np.uint64, len(words))


def hash_ngrams(words: Hashes, n: int) -> Hashes:
    """A number for each n-gram of hashed words, shape [words - n + 1]: a polynomial modulo 2^64."""
    count = len(words) - n + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    hashes = words[:count].copy()
    for offset in range(1, n):
        hashes *= _MULTIPLIER
        hashes += words[offset : offset + count]
    return hashes


def _hash_word(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _is_found(wanted: Hashes, known: Hashes) -> bool:
    places = np.searchsorted(known, wanted)
    places[places == len(known)] = 0
    return bool((known[places] == wanted).any())


# Workers build their steps for every unit; the content is part of the key, so that a changed file is read again.
@lru_cache(maxsize=4)
def _load(
    contents: tuple[str, ...], against: tuple[str, ...], text_fields: tuple[str, ...], ngram_words: int, min_words: int
) -> dict[int, Hashes]:
    """Sorted hashes by number of words: n-grams, and items that are shorter."""
    found: dict[int, list[Hashes]] = {}
    for path in find_files(against):
        for item in read_items(path, text_fields):
            words = hash_words(item)
            n = min(ngram_words, len(words))
            if n == ngram_words or n >= min_words:
                found.setdefault(n, []).append(hash_ngrams(words, n))
    if not found:
        raise DataError(
            f"corpus.steps, decontaminate.against: no item of {', '.join(against)} has {min(ngram_words, min_words)} "
            "words. Name other files, or lower min_item_words."
        )
    return {n: np.unique(np.concatenate(hashes)) for n, hashes in sorted(found.items())}
