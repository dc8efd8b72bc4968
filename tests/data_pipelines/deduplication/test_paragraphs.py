from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.deduplication.paragraphs import remove_paragraphs, split_paragraphs

TEXTS = st.lists(st.sampled_from(["a", "bb", "ccc dd", "\n", "\n\n", "\n \t\n", " ", "\r\n", "e\nf"]), max_size=30)


def test_paragraphs_are_what_blank_lines_separate() -> None:
    text = "  One line\nand another.  \n\n\n \t\nTwo.\n\r\nThree"
    assert split_paragraphs(text, 1) == ["One line\nand another.", "Two.", "Three"]
    assert split_paragraphs(text, 5) == ["One line\nand another.", "Three"]
    assert split_paragraphs(" \n\n ", 1) == []


def test_a_removed_paragraph_leaves_no_gap_and_short_ones_stay() -> None:
    text = "Heading\n\nA long paragraph.\n\n    Indented and long.\n\nThe last, long too.\n"
    assert len(split_paragraphs(text, 10)) == 3
    assert remove_paragraphs(text, 10, [True, False, False]) == (
        "Heading\n\n    Indented and long.\n\nThe last, long too.\n"
    )
    assert remove_paragraphs(text, 10, [False, False, True]) == (
        "Heading\n\nA long paragraph.\n\n    Indented and long.\n"
    )
    assert remove_paragraphs(text, 10, [True] * 3) == "Heading\n"


@given(TEXTS.map("".join), st.integers(1, 6), st.randoms(use_true_random=False))
def test_what_stays_are_the_paragraphs_not_removed(text: str, least: int, random: object) -> None:
    paragraphs = split_paragraphs(text, least)
    is_removed = [getattr(random, "random")() < 0.5 for _ in paragraphs]  # noqa: B009
    left = remove_paragraphs(text, least, is_removed)
    expected = [paragraph for paragraph, gone in zip(paragraphs, is_removed, strict=True) if not gone]
    assert split_paragraphs(left, least) == expected
