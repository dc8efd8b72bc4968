"""gigatoken, another encoder for SentencePiece models and several times as fast, where it is proven to be exact.

In: texts. Out: the ids that SentencePiece gives. Three things see to that: probes, and the first texts of the corpus,
are compared before it is used; texts that spell the name of a control symbol, of a byte or of another piece that is no
text go to SentencePiece; and while it works, one text in 256 is compared. It reads the Hugging Face twin of the model.
"""

import itertools
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from llmtrain.errors import DataError, MachineError
from llmtrain.tokenizer.fast_conversion import PROBES, convert_to_fast
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer

# Runs of one character can be merged in many ways of equal rank.
_RUN_PARTS = (" ", "\n", "\t", "\r\n", "-", "=", "*", "a", "0", "_", "ab", "\u2581", "的", "e\u0301", "🙂", "\x00")
_RUN_LENGTHS = (2, 3, 5, 7, 8, 13, 31, 64, 97)
_LONG_TEXTS = ("x" * 20_000, "Donaudampfschifffahrt" * 50, "3" * 5000, "\ufffd\ufffe\uffff\U0010ffff", "x\u0300" * 40)
# Characters of the corpus that are compared before anything is encoded, and then one text in so many.
_COMPARED_CHARACTERS, _COMPARED_EVERY = 300_000, 256
_REMEMBERED_CHARACTERS = 32_000_000
_KEY = "corpus.tokenizer.accelerator"


class GigatokenEncoder:
    """Encodes texts on the calling thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Load the model and compare the probes.

        Raises:
            MachineError: gigatoken is not installed.
            DataError: it does not read this model, or gives other ids.
        """
        try:
            from gigatoken import Tokenizer as Gigatoken  # late: it is optional
        except ImportError as error:
            raise MachineError(
                f"{_KEY} = gigatoken: the Python package 'gigatoken' cannot be imported: {error}. Install it: "
                "pip install 'llmtrain[gigatoken]', or set it to null: the shards are the same."
            ) from error
        self._tokenizer, self._load = tokenizer, Gigatoken.from_json
        self._twin = convert_to_fast(tokenizer).to_str()
        try:
            self._gigatoken = self._load(self._twin)
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"{_KEY} = gigatoken: it does not read tokenizer {tokenizer.sha256[:12]}: {reason}. Set it to null."
            ) from error
        self._characters_in_memory = 0
        processor = tokenizer.processor
        kinds = (processor.is_control, processor.is_unknown, processor.is_byte, processor.is_unused)
        names = (processor.id_to_piece(i) for i in range(tokenizer.vocab_size) if any(kind(i) for kind in kinds))
        self._names = re.compile("|".join(map(re.escape, names)))
        self._characters_to_compare = _COMPARED_CHARACTERS
        self.compare(make_probes())

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Ids of texts one after the other, and the length of each.

        Raises:
            DataError: a text that was compared has other ids.
        """
        self.compare(self._choose(texts))
        rows = [self._encode(text) for text in texts]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.concatenate([*rows, np.empty(0, np.uint32)]), lengths

    def compare(self, texts: Iterable[str]) -> None:
        """Make sure that texts have the ids of SentencePiece.

        Raises:
            DataError: one has not; the first difference is shown.
        """
        for text in texts:
            expected, found = self._tokenizer.encode(text), self._encode(text).tolist()
            if found != expected:
                pairs = itertools.zip_longest(expected, found)
                place = next(i for i, (one, other) in enumerate(pairs) if one != other)
                start = max(0, len(self._tokenizer.decode(expected[:place])) - 20)
                raise DataError(
                    f"{_KEY} = gigatoken: {text[start : start + 80]!r}, a piece of a text, has from token {place} on "
                    f"ids {expected[place : place + 8]} in SentencePiece, {found[place : place + 8]} in gigatoken. Set "
                    "it to null, then run `llmtrain data prepare` again: it continues with this source."
                )

    def _choose(self, texts: Iterable[str]) -> Iterator[str]:
        """The first texts, and after them those that a checksum chooses."""
        for text in texts:
            if self._characters_to_compare > 0 or zlib.crc32(text.encode()) % _COMPARED_EVERY == 0:
                self._characters_to_compare -= len(text)
                yield text

    def _encode(self, text: str) -> NDArray[np.uint32]:
        if self._names.search(text):
            return np.array(self._tokenizer.encode(text), np.uint32)
        # It remembers every word that it has seen.
        if self._characters_in_memory > _REMEMBERED_CHARACTERS:
            self._gigatoken, self._characters_in_memory = self._load(self._twin), 0
        self._characters_in_memory += len(text)
        ids: NDArray[np.uint32] = self._gigatoken.encode(text)
        return ids


def make_probes() -> tuple[str, ...]:
    """Texts on which encoders differ, if they do."""
    runs = (part * length for part in _RUN_PARTS for length in _RUN_LENGTHS)
    mixed = (f"a{one * 3}{other * 4}b" for one, other in itertools.permutations(_RUN_PARTS, 2))
    return (*PROBES, *_LONG_TEXTS, *runs, *mixed)
