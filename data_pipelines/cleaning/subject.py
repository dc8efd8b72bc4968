"""The text that the steps of cleaning look at: what several rules count is counted once."""

from collections import Counter
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data_pipelines.cleaning.repetition import RepeatedNgrams, Repeats, count_repeats, find_repeated_ngrams


class Subject:
    """One document under cleaning. A step reads it, may replace its text, and may note its language."""

    def __init__(self, text: str, language: str = "") -> None:
        self.text = text
        self.language = language
        """ISO 639-1 code; empty as long as no step has looked."""
        self.notes: list[str] = []
        """Findings about a document that is kept all the same; they are counted."""

    def replace(self, text: str) -> None:
        """Change the text; what was counted of the old one is forgotten. An equal text is no change."""
        if text != self.text:
            language, notes = self.language, self.notes
            self.__dict__.clear()
            self.text, self.language, self.notes = text, language, notes

    @cached_property
    def lines(self) -> list[str]:
        """Lines without their ends."""
        return self.text.splitlines()

    @cached_property
    def filled_lines(self) -> list[str]:
        """Lines that are not blank, without white space around them."""
        return [line for line in map(str.strip, self.lines) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What blank lines separate, without white space around it."""
        return [paragraph for paragraph in map(str.strip, self.text.split("\n\n")) if paragraph]

    @cached_property
    def words(self) -> list[str]:
        """Words: what white space separates, as in the papers the rules come from."""
        return self.text.split()

    @cached_property
    def word_counts(self) -> Counter[str]:
        """How often each word occurs, words in the order of their first occurrence."""
        return Counter(self.words)

    @cached_property
    def word_ids(self) -> npt.NDArray[np.int64]:
        """Each word as the number of its first occurrence among the different words."""
        numbers = dict(zip(self.word_counts, range(len(self.word_counts)), strict=True))
        return np.fromiter(map(numbers.__getitem__, self.words), np.int64, len(self.words))

    @cached_property
    def word_lengths(self) -> npt.NDArray[np.int64]:
        """Characters of each word."""
        return np.fromiter(map(len, self.words), np.int64, len(self.words))

    @cached_property
    def word_characters(self) -> int:
        """Characters of all words: of the text without white space."""
        return int(self.word_lengths.sum())

    @cached_property
    def repeated_lines(self) -> Repeats:
        """Filled lines that stood before."""
        return count_repeats(self.filled_lines)

    @cached_property
    def repeated_paragraphs(self) -> Repeats:
        """Paragraphs that stood before."""
        return count_repeats(self.paragraphs)

    @cached_property
    def repeated_ngrams(self) -> list[RepeatedNgrams]:
        """N-grams of words that occur more than once, for n = 2, 3, ... up to 10."""
        return find_repeated_ngrams(self.word_ids, self.word_lengths)
