import unicodedata

import numpy as np
import pytest

from data_pipelines.deduplication.words import hash_words
from tests.helpers.texts import stdlib_texts


def words_of(text: str) -> list[str]:
    """Words by a loop over characters, for texts without scripts that write no spaces."""
    letters = [c.lower() if unicodedata.category(c)[0] in "LNM" and len(c.lower()) == 1 else c for c in text]
    return "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in letters).split(" ")


def test_equal_words_and_only_they_have_equal_hashes() -> None:
    texts = [*stdlib_texts()[:4], "Grüße aus Köln, ñandú; हिन्दी भाषा. ΑΒΓ αβγ ДОМ дом"]
    expected = [[word for word in words_of(text) if word] for text in texts]
    hashes, counts = hash_words(texts)
    assert counts.tolist() == list(map(len, expected))
    pairs = set(zip((word for words in expected for word in words), hashes.tolist(), strict=True))
    assert len(pairs) == len({word for word, _ in pairs}) == len({value for _, value in pairs}) > 1000


def test_case_punctuation_and_white_space_do_not_count() -> None:
    hashes, counts = hash_words(["Hello, World!", "«hello»\t\n world…", "", "?!"])
    assert counts.tolist() == [2, 2, 0, 0]
    assert hashes[:2].tolist() == hashes[2:].tolist()


def test_words_do_not_reach_over_texts() -> None:
    together, _ = hash_words(["one two", "three"])
    alone = [hash_words([text])[0].tolist() for text in ("one two", "three")]
    assert together.tolist() == alone[0] + alone[1]


@pytest.mark.parametrize(("text", "count"), [("東京は日本の首都です", 10), ("สวัสดี", 4), ("abc東京def", 4)])
def test_scripts_without_spaces_have_a_word_for_each_character(text: str, count: int) -> None:
    hashes, _ = hash_words([text])
    assert len(hashes) >= count


def test_hashes_are_the_same_for_ever() -> None:
    assert hash_words(["The quick 東 fox"])[0].tolist() == [
        8928442692767167958,
        10159500852534841361,
        14049864254653131578,
        9505094948528636865,
    ]


def test_a_text_longer_than_any_before_is_hashed_alike() -> None:
    text = "word and another " * 20_000
    hashes, counts = hash_words([text])
    assert counts.tolist() == [60_000]
    assert len(np.unique(hashes)) == 3
    assert hashes[:3].tolist() == hash_words(["word and another"])[0].tolist()
