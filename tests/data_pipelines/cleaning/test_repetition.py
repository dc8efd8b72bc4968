from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.cleaning.repetition import RepeatedNgrams, Repeats, count_repeats, find_repeated_ngrams
from data_pipelines.cleaning.subject import Subject


def find_naively(words: list[str], n: int) -> RepeatedNgrams:
    ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    counts = Counter(ngrams)
    most = max(counts.values(), default=0)
    if most < 2:
        return RepeatedNgrams(0, 0)
    top = max(sum(map(len, ngram)) for ngram, count in counts.items() if count == most)
    seen, covered = set(), set()
    for start, ngram in enumerate(ngrams):
        if ngram in seen:
            covered |= set(range(start, start + n))
        seen.add(ngram)
    return RepeatedNgrams(most * top, sum(len(words[i]) for i in covered))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["a", "bb", "ccc", "d"]), max_size=60))
def test_repeated_ngrams_are_those_that_counting_every_ngram_finds(words: list[str]) -> None:
    found = Subject(" ".join(words)).repeated_ngrams
    naive = [find_naively(words, n) for n in range(2, 11)]
    assert found == [ngrams for ngrams in naive if ngrams.top_characters]
    assert not any(ngrams.top_characters for ngrams in naive[len(found) :])


def test_characters_in_overlapping_repetitions_are_counted_once() -> None:
    words = np.zeros(20, np.int64)
    found = find_repeated_ngrams(words, np.full(20, 3), longest=5)
    # All words but the first are in a second or later occurrence.
    assert found[-1] == RepeatedNgrams(top_characters=16 * 15, duplicate_characters=19 * 3)


def test_text_without_repetition_has_none() -> None:
    assert find_repeated_ngrams(np.arange(100), np.ones(100, np.int64)) == []
    assert find_repeated_ngrams(np.zeros(0, np.int64), np.zeros(0, np.int64)) == []
    assert find_repeated_ngrams(np.zeros(1, np.int64), np.ones(1, np.int64)) == []


def test_repeats_are_second_and_later_occurrences() -> None:
    assert count_repeats(["one", "two", "one", "three", "one"]) == Repeats(0.4, 6 / 17)
    assert count_repeats(["one", "two"]) == Repeats(0.0, 0.0)
    assert count_repeats([]) == Repeats(0.0, 0.0)
