r"""Step `code_quality`: drops files that are generated, encoded or data rather than written source code.

Sources: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", section 3.1 (line lengths, alphanumeric
share); Li et al. 2023, "StarCoder: may the source be with you!" (alphabetic share); Lozhkov et al. 2024, "StarCoder 2
and The Stack v2: The Next Generation" (number of lines, encoded data).
"""

import re
from string import ascii_letters, digits

from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import CodeQualityStep

_LETTERS, _DIGITS = ascii_letters.encode(), digits.encode()
_OTHER = re.compile(r"[^\x00-\x7f]+")
# Where a run begins none goes on from before, else long runs would be tried from each of their letters.
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{64,}(?:\n[ \t]*[A-Za-z0-9+/]{16,})*={0,2}")
_MIN_BASE64 = 64
_HEXADECIMAL = re.compile(r"(?<![0-9A-Za-z])(?:(?:0x|\\x)?[0-9a-fA-F]{2}(?:,\s*|\s+|(?=\\x)|(?![0-9A-Za-z]))){8,}")
_UNICODE_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4}){8,}")


class CodeQuality:
    """Drops what is no written code."""

    def __init__(self, config: CodeQualityStep) -> None:
        self._config = config

    def __call__(self, subject: Subject) -> str | None:
        """Why the document is dropped; None when it stays."""
        reason = self._judge_lines(subject) or self._judge_characters(subject.text)
        return f"code_quality: {reason}" if reason else None

    def _judge_lines(self, subject: Subject) -> str | None:
        config, lengths = self._config, list(map(len, subject.lines))
        if len(lengths) > config.max_lines:
            return "too_many_lines"
        if sum(lengths) > config.max_mean_line_characters * len(lengths):
            return "long_lines"
        if max(lengths, default=0) > config.max_line_characters:
            return "long_line"
        return None

    def _judge_characters(self, text: str) -> str | None:
        config = self._config
        letters, numerals = count_letters_and_digits(text)
        if letters + numerals < config.min_alphanumeric_fraction * len(text):
            return "few_alphanumeric_characters"
        if letters < config.min_alphabetic_fraction * len(text):
            return "few_letters"
        runs = find_encoded_runs(text)
        is_long = max(runs, default=0) > config.max_encoded_run_characters
        if is_long or sum(runs) > config.max_encoded_fraction * len(text):
            return "encoded_data"
        return None


def count_letters_and_digits(text: str) -> tuple[int, int]:
    """Characters that are letters, and those that are digits, in any script."""
    ascii_text = text.encode("ascii", "ignore")
    letters = len(ascii_text) - len(ascii_text.translate(None, _LETTERS))
    numerals = len(ascii_text) - len(ascii_text.translate(None, _DIGITS))
    if len(ascii_text) < len(text):
        others = "".join(_OTHER.findall(text))
        letters += sum(map(str.isalpha, others))
        numerals += sum(map(str.isdigit, others))
    return letters, numerals


def find_encoded_runs(text: str) -> list[int]:
    """Characters of each run of base64, of hexadecimal bytes and of Unicode escapes."""
    patterns = [_HEXADECIMAL]
    if max(map(len, text.split()), default=0) >= _MIN_BASE64:
        patterns.append(_BASE64)
    if "\\u" in text:
        patterns.append(_UNICODE_ESCAPES)
    return [len(match[0]) for pattern in patterns for match in pattern.finditer(text)]
