"""Steps `gopher_quality` and `gopher_repetition`: the rules of MassiveText.

Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", appendix A.1.
"""

import re

from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import GopherQualityStep, GopherRepetitionStep

_ELLIPSES = ("...", "\u2026")
_BULLETS = ("-", "*", "\u2022", "\u2023", "\u25cf", "\u25e6", "\u25aa", "\u00b7")
_LETTER = re.compile(r"[^\W\d_]")


class GopherQuality:
    """Drops documents whose words and lines are not those of running text."""

    def __init__(self, config: GopherQualityStep) -> None:
        self._config = config
        self._stop_words = [frozenset((word, word.capitalize(), word.upper())) for word in config.stop_words]

    def __call__(self, subject: Subject) -> str | None:
        """Why the document is dropped; None when it stays."""
        reason = self._judge_words(subject) or self._judge_lines(subject)
        return f"gopher_quality: {reason}" if reason else None

    def _judge_words(self, subject: Subject) -> str | None:
        config, num_words = self._config, len(subject.words)
        if num_words < config.min_words:
            return "too_few_words"
        if num_words > config.max_words:
            return "too_many_words"
        mean = subject.word_characters / num_words if num_words else 0.0
        if num_words and mean < config.min_mean_word_characters:
            return "short_words"
        if mean > config.max_mean_word_characters:
            return "long_words"
        if subject.text.count("#") > config.max_hashes_per_word * num_words:
            return "hashes"
        if sum(map(subject.text.count, _ELLIPSES)) > config.max_ellipses_per_word * num_words:
            return "ellipses"
        counts = subject.word_counts
        without = sum(count for word, count in counts.items() if not word.isalpha() and not _LETTER.search(word))
        if num_words - without < config.min_alphabetic_words_fraction * num_words:
            return "few_alphabetic_words"
        if sum(not spellings.isdisjoint(counts) for spellings in self._stop_words) < config.min_stop_words:
            return "few_stop_words"
        return None

    def _judge_lines(self, subject: Subject) -> str | None:
        config, lines = self._config, subject.filled_lines
        bullets = sum(line.startswith(_BULLETS) for line in lines)
        if bullets > config.max_bullet_lines_fraction * len(lines):
            return "bullet_lines"
        ellipses = sum(line.endswith(_ELLIPSES) for line in lines)
        if ellipses > config.max_ellipsis_lines_fraction * len(lines):
            return "ellipsis_lines"
        return None


class GopherRepetition:
    """Drops documents that repeat themselves."""

    def __init__(self, config: GopherRepetitionStep) -> None:
        self._config = config

    def __call__(self, subject: Subject) -> str | None:
        """Why the document is dropped; None when it stays."""
        reason = self._judge_parts(subject) or self._judge_ngrams(subject)
        return f"gopher_repetition: {reason}" if reason else None

    def _judge_parts(self, subject: Subject) -> str | None:
        config = self._config
        if subject.repeated_lines.fraction > config.max_duplicate_line_fraction:
            return "duplicate_lines"
        if subject.repeated_paragraphs.fraction > config.max_duplicate_paragraph_fraction:
            return "duplicate_paragraphs"
        if subject.repeated_lines.character_fraction > config.max_duplicate_line_character_fraction:
            return "duplicate_line_characters"
        if subject.repeated_paragraphs.character_fraction > config.max_duplicate_paragraph_character_fraction:
            return "duplicate_paragraph_characters"
        return None

    def _judge_ngrams(self, subject: Subject) -> str | None:
        characters = subject.word_characters
        repeated = dict(enumerate(subject.repeated_ngrams, start=2))
        for n, limit in enumerate(self._config.max_top_ngram_character_fractions, start=2):
            if n in repeated and repeated[n].top_characters > limit * characters:
                return f"top_{n}_gram"
        for n, limit in enumerate(self._config.max_duplicate_ngram_character_fractions, start=5):
            if n in repeated and repeated[n].duplicate_characters > limit * characters:
                return f"duplicate_{n}_grams"
        return None
