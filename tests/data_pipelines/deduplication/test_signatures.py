import random
from functools import cache

import numpy as np
import pytest

from data_pipelines.deduplication import signatures
from data_pipelines.deduplication.signatures import compute_bands, compute_shingles
from llmtrain.config.deduplicate import NearDuplicates
from tests.helpers.texts import stdlib_texts

CONFIG = NearDuplicates()


def jaccard(first: str, second: str) -> float:
    """True similarity of two texts: shingles in common of all shingles."""
    a, b = (set(compute_shingles([text], CONFIG.ngram_words)[0].tolist()) for text in (first, second))
    return len(a & b) / len(a | b)


@cache
def real_passages() -> tuple[str, ...]:
    """Some 300 passages of about 200 words of real text."""
    words = " ".join(stdlib_texts()).split()
    return tuple(" ".join(words[start : start + 200]) for start in range(0, len(words) - 200, 130))[:300]


def edit(text: str, share: float, generator: random.Random) -> str:
    """Replace a share of the words by words that occur nowhere else."""
    return " ".join(f"zz{generator.random()}" if generator.random() < share else word for word in text.split())


@pytest.mark.parametrize("share", [0.01, 0.03, 0.05, 0.2])
def test_edited_documents_are_found_as_often_as_the_formula_says(share: float) -> None:
    generator = random.Random(7)
    originals = list(real_passages())
    edited = [edit(text, share, generator) for text in originals]
    found = (compute_bands(originals, CONFIG)[0] == compute_bands(edited, CONFIG)[0]).any(axis=0)
    similarities = np.array([jaccard(a, b) for a, b in zip(originals, edited, strict=True)])
    chances = 1 - (1 - similarities**CONFIG.rows_per_band) ** CONFIG.bands
    # Four standard deviations of a sum of independent coins, and one document.
    bound = 4 * np.sqrt((chances * (1 - chances)).sum()) + 1
    assert abs(found.sum() - chances.sum()) < bound
    if share == 0.01:
        assert found.mean() > 0.95
    if share == 0.2:
        assert found.mean() < 0.2


def test_rows_agree_with_the_probability_of_the_similarity_independently_of_each_other() -> None:
    rows = NearDuplicates(bands=200, rows_per_band=1)
    generator = random.Random(3)
    originals = list(real_passages())
    edited = [edit(text, 0.05, generator) for text in originals]
    agree = compute_bands(originals, rows)[0] == compute_bands(edited, rows)[0]
    similarities = np.array([jaccard(a, b) for a, b in zip(originals, edited, strict=True)])
    deviation = np.sqrt((similarities * (1 - similarities)).sum() / 200)
    assert abs(agree.mean(axis=0).sum() - similarities.sum()) < 5 * deviation
    # Independent rows: the number that agrees varies as that of coins does.
    normalised = (agree.mean(axis=0) - similarities) / np.sqrt(similarities * (1 - similarities) / 200)
    assert 0.8 < normalised.std() < 1.25


def test_unrelated_documents_do_not_meet() -> None:
    passages = list(real_passages())[::2]
    bands = compute_bands(passages, CONFIG)[0]
    for band in bands:
        firsts = {value: number for number, value in reversed(list(enumerate(band.tolist())))}
        for number, value in enumerate(band.tolist()):
            assert number == firsts[value] or jaccard(passages[number], passages[firsts[value]]) > 0.3


def test_signatures_do_not_depend_on_what_is_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["", "?", "one", "one two three four five", "One, two; three four FIVE!", *stdlib_texts()[:3], "a b c d"]
    together, has_words = compute_bands(texts, CONFIG)
    assert has_words.tolist() == [False, False, True, True, True, True, True, True, True]
    alone = np.concatenate([compute_bands([text], CONFIG)[0] for text in texts], axis=1)
    assert np.array_equal(together, alone)
    monkeypatch.setattr(signatures, "_BLOCK_SHINGLES", 37)
    monkeypatch.setattr(signatures, "_BATCH_CHARACTERS", 40_000)
    assert np.array_equal(together, compute_bands(texts, CONFIG)[0])
    assert np.array_equal(together[:, 3], together[:, 4])


def test_minima_are_those_of_a_loop() -> None:
    texts = ["a b c d e f g h", "x", "a b c d e f g i j k"]
    shingles, counts = compute_shingles(texts, 3)
    assert counts.tolist() == [6, 1, 8]
    multipliers, offsets = signatures._permutations(4)
    minima = signatures._compute_minima(shingles, counts, 4)
    rows = np.split(shingles, np.cumsum(counts)[:-1])
    for row in range(4):
        for text in range(3):
            values = [(int(x) * int(multipliers[row]) + int(offsets[row])) % 2**32 for x in rows[text].tolist()]
            assert minima[row, text] == min(values)


def test_signatures_are_the_same_for_ever() -> None:
    bands, _ = compute_bands(["A text whose signature must never change, 東京."], NearDuplicates(bands=2))
    assert bands[:, 0].tolist() == [939586858051960970, 1646976280878940762]


def test_one_changed_character_leaves_most_of_a_text_without_spaces() -> None:
    text = "".join(chr(0x4E00 + (i * i * 7 + i * 13) % 900) for i in range(400))
    assert jaccard(text, text[:200] + "龍" + text[201:]) > 0.9
