"""Step `bounds`: documents that are too short, too long, have an endless line, or are no text."""

from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import BoundsStep


class Bounds:
    """Drops what is beyond the bounds."""

    def __init__(self, config: BoundsStep) -> None:
        self._config = config

    def __call__(self, subject: Subject) -> str | None:
        """Why the document is dropped; None when it stays."""
        text, config = subject.text, self._config
        if len(text) < config.min_characters:
            return "too_short"
        if len(text) > config.max_characters:
            return "too_long"
        if max(map(len, subject.lines), default=0) > config.max_line_characters:
            return "long_line"
        printable = sum(character.isprintable() or character in "\n\t" for character in text)
        if printable < config.min_printable_fraction * len(text):
            return "binary"
        return None
