"""Step `c4_quality`: takes out lines that are no sentences, and drops pages with too little left or with code.

Sources: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
section 2.2; for policy lines, citations and long words the code of the C4 dataset in TensorFlow Datasets (c4_utils.py).
The list of bad words is not applied, and repeated spans of sentences are left to deduplication.
"""

import re

from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import C4QualityStep

_TERMINAL = (".", "?", "!", '"', "\u201d", "\u3002", "\uff01", "\uff1f")
_CITATION = re.compile(r"(?<![ \t])[ \t]*\[(?:\d+|edit|citation needed)\]")
_POLICY = re.compile(r"terms of use|privacy policy|cookie policy|use(?:s|) cookies|use of cookies")
_SENTENCE_END = re.compile(r"[.?!]+[\"'\u201d\u2019)\]]*(?=\s|$)|[\u3002\uff01\uff1f]+")
_NEVER = re.compile(r"(?!)")


class C4Quality:
    """Takes out lines; drops pages."""

    def __init__(self, config: C4QualityStep) -> None:
        self._config = config
        unwanted = ["javascript"] * config.remove_javascript_lines + [_POLICY.pattern] * config.remove_policy_lines
        self._unwanted = re.compile("|".join(unwanted)) if unwanted else _NEVER
        self._long_word = re.compile(rf"\S{{{config.max_word_characters + 1}}}")

    def __call__(self, subject: Subject) -> str | None:
        """Why the document is dropped; None when it stays, perhaps with fewer lines."""
        config, lowered = self._config, subject.text.lower()
        if config.drop_lorem_ipsum and "lorem ipsum" in lowered:
            return "c4_quality: lorem_ipsum"
        if config.drop_curly_brackets and "{" in subject.text:
            return "c4_quality: curly_bracket"
        text = _CITATION.sub("", subject.text) if config.remove_citations else subject.text
        looks_at_words = self._unwanted.search(lowered) is not None
        looks_at_length = self._long_word.search(text) is not None
        lines = text.split("\n")
        kept = [line for line in lines if not line or self._keeps(line, looks_at_words, looks_at_length)]
        if len(kept) != len(lines):
            text = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n") + "\n"
        if _count_sentences(text, config.min_sentences) < config.min_sentences:
            return "c4_quality: too_few_sentences"
        subject.replace(text)
        return None

    def _keeps(self, line: str, looks_at_words: bool, looks_at_length: bool) -> bool:
        config, line = self._config, line.rstrip()
        if config.require_terminal_punctuation and (not line.endswith(_TERMINAL) or line.endswith("...")):
            return False
        if len(line.split(None, config.min_line_words)) < config.min_line_words:
            return False
        if looks_at_words and self._unwanted.search(line.lower()):
            return False
        return not (looks_at_length and self._long_word.search(line))


def _count_sentences(text: str, enough: int) -> int:
    """Sentences: marks at their ends, and lines that end without one. Stops where there are enough."""
    count = 0
    for line in text.split("\n"):
        if count >= enough:
            break
        if line := line.rstrip():
            ends = [match.end() for match in _SENTENCE_END.finditer(line)]
            count += len(ends) + (not ends or ends[-1] < len(line))
    return count
