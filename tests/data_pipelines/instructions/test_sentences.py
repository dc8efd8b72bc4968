import pytest

from data_pipelines.instructions.sentences import (
    drop_pronunciation,
    is_clean,
    split_sentences,
    stands_alone,
    take_sentences,
)


@pytest.mark.parametrize(
    "sentences",
    [
        ["He lived in the U.S. for years.", "The house was old."],
        ["He lived in the U.S.", "The house was old."],
        ["Dr. Smith met J. R. R. Tolkien in Washington, D.C. in 1950, e.g. on Monday.", "They talked."],
        ['"So it is."', "Yes (see p. 3. Or not)."],
        ["It erupted at 3.5 p.m.", "It was No. 1 in vol. 2.", "Is that so?", "Yes!", "The end"],
        ["Mount St. Helens is a volcano.", "Version 3.11 came later."],
    ],
)
def test_sentences_end_where_a_reader_ends_them(sentences: list[str]) -> None:
    assert split_sentences("  ".join(sentences)) == sentences


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("Alaska (/ə\u02c8læskə/) is a state.", "Alaska is a state."),
        ("Lincoln (/\u02c8e\u026abrəhæm/; February 12, 1809) was", "Lincoln (February 12, 1809) was"),
        ("Angola /æŋ\u02c8\u0261oʊlə/, officially", "Angola, officially"),
        ("Words and/or signs (in brackets; or not) stay /usr/bin/env too", None),
    ],
)
def test_phonetic_transcriptions_go_and_the_rest_stays(text: str, without: str | None) -> None:
    assert drop_pronunciation(text) == (without or text)


@pytest.mark.parametrize(
    "text",
    [
        "It ends without a point",
        "lower case begins this sentence.",
        "Too short it.",
        "A bracket ( stays open here.",
        'A quote " stays open here.',
        "One | two | three | four.",
        "It has empty brackets () in it.",
        "It holds one. - And an item of a list.",
        "It was cut off here ...",
    ],
)
def test_what_is_no_whole_prose_is_told(text: str) -> None:
    assert not is_clean(text)
    assert is_clean("It is a whole sentence (with an aside).")


def test_sentences_that_point_back_are_told() -> None:
    assert not stands_alone("This is a part of it.")
    assert not stands_alone("It is one.")
    assert not stands_alone("1984 is a novel.")
    assert stands_alone("Anarchism is a philosophy.")


def test_as_many_sentences_are_taken_as_fit() -> None:
    sentences = ["One two three four.", "Five six seven eight.", "Nine ten eleven twelve."]
    assert take_sentences(sentences, 45) == "One two three four. Five six seven eight."
    assert take_sentences(sentences, 10) == ""
