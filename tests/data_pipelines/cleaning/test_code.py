import base64
import random
from typing import Any

import pytest

from data_pipelines.cleaning.code import CodeQuality, count_letters_and_digits, find_encoded_runs
from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import CodeQualityStep
from tests.helpers.texts import stdlib_texts

RANDOM = random.Random(0).randbytes(3_000)
CODE = "def compute(values):\n    return sum(values) / len(values)\n" * 5


def judge(text: str, **values: Any) -> str | None:
    return CodeQuality(CodeQualityStep(name="code_quality", **values))(Subject(text))


@pytest.mark.parametrize(
    ("kept", "dropped", "reason"),
    [
        ("a = b\n" * 100_000, "a = b\n" * 100_001, "too_many_lines"),
        (("x y z " * 16 + "long\n") * 3, ("x y z " * 16 + "long\n") * 2 + "x y z " * 16 + "lines", "long_lines"),
        ("a\n" * 20 + "x y " * 250, "a\n" * 20 + "x y " * 250 + "z", "long_line"),
        ("a" * 25 + "-" * 75, "a" * 24 + "-" * 76, "few_alphanumeric_characters"),
        ("a" * 25 + "1" * 25 + ", " * 25, "a" * 24 + "1" * 26 + ", " * 25, "few_letters"),
    ],
    ids=lambda value: value if len(value) < 30 else "",
)
def test_each_rule_keeps_what_is_at_its_bound_and_drops_what_is_beyond(kept: str, dropped: str, reason: str) -> None:
    assert judge(kept) is None
    assert judge(dropped) == f"code_quality: {reason}"


@pytest.mark.parametrize(
    "data",
    [
        base64.encodebytes(RANDOM).decode(),
        "b'" + "".join(f"\\x{byte:02x}" for byte in RANDOM[:240]) + "'",
        "\n".join(", ".join(f"0x{byte:02x}" for byte in RANDOM[i : i + 12]) + "," for i in range(0, 1200, 12)),
        "'" + "\\u4e2d" * 150 + "'",
    ],
    ids=["base64", "escaped bytes", "array of bytes", "escaped text"],
)
def test_encoded_data_is_found_in_every_spelling(data: str) -> None:
    assert max(find_encoded_runs(CODE + data)) >= 0.9 * len(data)
    free = {"max_encoded_run_characters": 10_000, "max_line_characters": 10_000, "max_mean_line_characters": 10_000.0}
    assert judge(CODE + data, **free) == "code_quality: encoded_data"
    assert judge(CODE * 100 + data, **free) is None


def test_one_long_run_is_enough() -> None:
    key = "\\u4e2d" * 170
    assert judge(CODE * 100 + key + "abcd", max_line_characters=2_000) is None
    assert judge(CODE * 100 + key + "\\u4e2d", max_line_characters=2_000) == "code_quality: encoded_data"


def test_written_code_holds_no_encoded_data() -> None:
    assert [text[:60] for text in stdlib_texts() if sum(find_encoded_runs(text)) > 0.02 * len(text)] == []
    assert [judge(text) for text in stdlib_texts()] == [None] * len(stdlib_texts())


def test_letters_and_digits_are_counted_in_every_script() -> None:
    text = "ab1 \u00e4\u4e2d\u0416 \u0664_-\U0001f600"
    letters = sum(map(str.isalpha, text))
    digits = sum(map(str.isdigit, text))
    assert count_letters_and_digits(text) == (letters, digits) == (5, 2)
