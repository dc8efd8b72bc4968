import pytest

from data_pipelines.cleaning.mend import mend
from tests.helpers.texts import stdlib_texts


@pytest.mark.parametrize(
    ("raw", "mended"),
    [
        ("one\r\ntwo\rthree", "one\ntwo\nthree\n"),
        ("\n\n  indented \t\nend\n\n\n", "  indented\nend\n"),
        ("a\x00b\x07c\x7fd\uffffe\tf", "abcde\tf\n"),
        ("<object at 0x7f3a52b9c1d0>", "<object at 0x...>\n"),
        ("at 0xff is a mask, 0x7f3a52b9c1d0 a number", "at 0xff is a mask, 0x7f3a52b9c1d0 a number\n"),
        ("two\u2581words", "two words\n"),
        ("ends \u2581\nnext", "ends\nnext\n"),
        ("e\u0301", "\u00e9\n"),
        ("half a pair \ud800 alone", "half a pair \ufffd alone\n"),
        ("", "\n"),
    ],
)
def test_what_no_document_should_hold_is_taken_out(raw: str, mended: str) -> None:
    assert mend(raw) == mended


def test_clean_text_stays_as_it_is_and_mending_twice_changes_nothing() -> None:
    for text in stdlib_texts():
        assert mend(text) == text.strip("\n") + "\n"
    odd = " \u2581 x\x00 \r\r\n e\u0301 \ud800 at 0x123456789 \n\n"
    assert mend(mend(odd)) == mend(odd)
