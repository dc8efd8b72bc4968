"""Step `fineweb_quality`: rules found by comparing statistics of good and bad dumps of the web.

Source: Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale", on
additional heuristic filters; the rule about lines per word is in its code (datatrove) only.
"""

from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import FinewebQualityStep

_PUNCTUATION = (*'.?!"', "\u2026", "\u201d", "\u3002", "\uff01", "\uff1f", "\u061f", "\u0964")


class FinewebQuality:
    """Drops lists, menus and pages that repeat lines."""

    def __init__(self, config: FinewebQualityStep) -> None:
        self._config = config

    def __call__(self, subject: Subject) -> str | None:
        """Why the document is dropped; None when it stays."""
        config, lines = self._config, subject.filled_lines
        punctuated = sum(line.endswith(_PUNCTUATION) for line in lines)
        if punctuated <= config.min_punctuated_lines_fraction * len(lines):
            return "fineweb_quality: few_punctuated_lines"
        if subject.repeated_lines.character_fraction >= config.max_duplicate_line_character_fraction:
            return "fineweb_quality: duplicate_line_characters"
        short = sum(len(line) < config.short_line_characters for line in lines)
        if short >= config.max_short_lines_fraction * len(lines):
            return "fineweb_quality: short_lines"
        if subject.text.count("\n") > config.max_lines_per_word * len(subject.words):
            return "fineweb_quality: lines_per_word"
        return None
