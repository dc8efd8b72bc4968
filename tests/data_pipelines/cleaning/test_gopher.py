from typing import Any

import pytest

from data_pipelines.cleaning.gopher import GopherQuality, GopherRepetition
from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import GopherQualityStep, GopherRepetitionStep

STOP = "the of"


def judge_quality(text: str, **values: Any) -> str | None:
    return GopherQuality(GopherQualityStep(name="gopher_quality", **values))(Subject(text))


def judge_repetition(text: str, **values: Any) -> str | None:
    return GopherRepetition(GopherRepetitionStep(name="gopher_repetition", **values))(Subject(text))


def words(count: int, length: int = 5) -> str:
    """`count` words of `length` characters."""
    return " ".join(["abcdefghijklmnopqrstuvwxyz"[:length]] * count)


@pytest.mark.parametrize(
    ("kept", "dropped", "reason"),
    [
        (f"{STOP} {words(48)}", f"{STOP} {words(47)}", "too_few_words"),
        (f"{STOP} {words(99_998)}", f"{STOP} {words(99_999)}", "too_many_words"),
        # 5 characters in the two stop words: 100 words of 300 and of 299 characters.
        (f"{STOP} {words(97, 3)} abcd", f"{STOP} {words(98, 3)}", "short_words"),
        (f"{STOP} {words(97, 10)} {'a' * 25}", f"{STOP} {words(97, 10)} {'a' * 26}", "long_words"),
        (f"{STOP} {words(98)}{'#' * 10}", f"{STOP} {words(98)}{'#' * 11}", "hashes"),
        (
            f"{STOP} {words(87)} {'ab... ' * 5}{'ab… ' * 5}c",
            f"{STOP} {words(86)} {'ab... ' * 6}{'ab… ' * 5}c",
            "ellipses",
        ),
        (f"{STOP} {words(78)} {'12345 ' * 20}", f"{STOP} {words(77)} {'12345 ' * 21}", "few_alphabetic_words"),
        (f"the The be {words(97)}", f"the The {words(98)}", "few_stop_words"),
        (
            f"{STOP} {words(50)}\n" + "- abc\n" * 9,
            f"{STOP} {words(50)}\n" + "- abc\n" * 5 + "  • abc\n" * 5,
            "bullet_lines",
        ),
        (
            f"{STOP} {words(50)}\n" * 7 + "and so on...\n" * 3,
            f"{STOP} {words(50)}\n" * 6 + "and so on...\n" * 2 + "then…\n",
            "ellipsis_lines",
        ),
    ],
    ids=lambda value: value if len(value) < 25 else "",
)
def test_each_quality_rule_keeps_what_is_at_its_bound_and_drops_what_is_beyond(
    kept: str, dropped: str, reason: str
) -> None:
    assert judge_quality(kept) is None
    assert judge_quality(dropped) == f"gopher_quality: {reason}"


def test_stop_words_are_those_of_the_configuration() -> None:
    german = f"der und {words(48)}"
    assert judge_quality(german) == "gopher_quality: few_stop_words"
    assert judge_quality(german, stop_words=["der", "und"]) is None
    assert judge_quality(german, min_stop_words=0) is None


def test_an_empty_document_is_too_short_unless_the_configuration_says_otherwise() -> None:
    assert judge_quality("\n") == "gopher_quality: too_few_words"
    assert judge_quality("\n", min_words=0, min_stop_words=0) is None


def lines(distinct: int, repeated: int, length: int = 4) -> str:
    """Lines of one word each that differ, and one more line several times."""
    different = [f"{number:0{length}d}" for number in range(distinct)]
    return "\n".join([*different, *["x" * length] * (repeated + bool(repeated))])


@pytest.mark.parametrize(
    ("kept", "dropped", "reason"),
    [
        # 10 lines; three stood before, then four. The shares of characters are held down by long different lines.
        (lines(6, 3, 1) + "\n" + "w" * 99, lines(5, 4, 1) + "\n" + "w" * 99, "duplicate_lines"),
        (
            lines(6, 3, 1).replace("\n", "\n\n") + "\n" + "\n".join(f"{n:09d}" for n in range(9)),
            lines(5, 4, 1).replace("\n", "\n\n") + "\n" + "\n".join(f"{n:09d}" for n in range(9)),
            "duplicate_paragraphs",
        ),
        (lines(7, 2), lines(6, 2), "duplicate_line_characters"),
    ],
)
def test_each_rule_about_lines_and_paragraphs_keeps_what_is_at_its_bound(kept: str, dropped: str, reason: str) -> None:
    free = [1.0, 1.0, 1.0]
    assert judge_repetition(kept, max_top_ngram_character_fractions=free) is None
    dropped_for = judge_repetition(dropped, max_top_ngram_character_fractions=free)
    assert dropped_for == f"gopher_repetition: {reason}"


def test_characters_in_paragraphs_that_stood_before_have_a_bound_of_their_own() -> None:
    text = "a b\nc d\n\n" + "\n\n".join(f"{n:04d}" for n in range(5)) + "\n\na b\nc d"
    values: dict[str, Any] = {"max_duplicate_line_character_fraction": 1.0, "max_duplicate_line_fraction": 1.0}
    values["max_top_ngram_character_fractions"] = [1.0, 1.0, 1.0]
    # Paragraphs hold 7 + 7 + 20 characters, 7 of them stood before.
    assert judge_repetition(text, **values) == "gopher_repetition: duplicate_paragraph_characters"
    assert judge_repetition(text, **values, max_duplicate_paragraph_character_fraction=7 / 34) is None


def ngram_text(n: int, occurrences: int, others: int) -> str:
    """An n-gram of words of 2 characters several times, between different words of 2 characters."""
    ngram = " ".join(f"a{chr(ord('a') + i)}" for i in range(n))
    fill = [f"{chr(0x4E00 + i)}{chr(0x5E00 + i)}" for i in range(others)]
    step = max(1, others // occurrences)
    pieces = [" ".join([ngram, *fill[i * step : (i + 1) * step]]) for i in range(occurrences)]
    return " ".join([*pieces, *fill[occurrences * step :]])


@pytest.mark.parametrize(("n", "percent"), [(2, 20), (3, 18), (4, 16)])
def test_the_most_frequent_ngram_is_judged_by_its_share_of_characters(n: int, percent: int) -> None:
    # 50 occurrences of n words are `percent` of the words: just kept; with one other word fewer just dropped.
    others = 50 * n * 100 // percent - 50 * n
    free = {"max_duplicate_ngram_character_fractions": [1.0] * 6}
    limits = [percent / 100 if n == size else 1.0 for size in (2, 3, 4)]
    free["max_top_ngram_character_fractions"] = limits
    assert judge_repetition(ngram_text(n, 50, others + 1), **free) is None
    assert judge_repetition(ngram_text(n, 50, others - 1), **free) == f"gopher_repetition: top_{n}_gram"


@pytest.mark.parametrize(("n", "percent"), [(5, 15), (6, 14), (7, 13), (8, 12), (9, 11), (10, 10)])
def test_repeated_ngrams_are_judged_by_the_characters_of_second_and_later_ones(n: int, percent: int) -> None:
    # One occurrence is free, 13 count.
    others = 13 * n * 100 // percent - 14 * n
    limits = [percent / 100 if n == size else 1.0 for size in range(5, 11)]
    free: dict[str, Any] = {"max_duplicate_ngram_character_fractions": limits}
    free["max_top_ngram_character_fractions"] = [1.0] * 3
    assert judge_repetition(ngram_text(n, 14, others + 1), **free) is None
    assert judge_repetition(ngram_text(n, 14, others - 1), **free) == f"gopher_repetition: duplicate_{n}_grams"


def test_defaults_are_those_of_the_table_in_the_paper() -> None:
    config = GopherRepetitionStep(name="gopher_repetition")
    assert config.max_top_ngram_character_fractions == [0.20, 0.18, 0.16]
    assert config.max_duplicate_ngram_character_fractions == [0.15, 0.14, 0.13, 0.12, 0.11, 0.10]


def test_an_empty_document_repeats_nothing() -> None:
    assert judge_repetition("\n") is None
