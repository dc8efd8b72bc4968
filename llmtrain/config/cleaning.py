"""Section `corpus.steps`: what cleaning does to each document, step by step."""

from typing import Literal

from llmtrain.config.section import Fraction, NonNegativeInt, PositiveInt, Section


class BoundsStep(Section):
    """Drops documents that are too short, too long, have an endless line, or are no text."""

    name: Literal["bounds"]
    """Which step."""
    min_characters: NonNegativeInt = 100
    """Shorter documents are dropped (`too_short`)."""
    max_characters: PositiveInt = 2_000_000
    """Longer documents are dropped (`too_long`)."""
    max_line_characters: PositiveInt = 5_000
    """Documents with a longer line are dropped (`long_line`): minified code, encoded data."""
    min_printable_fraction: Fraction = 0.98
    """Documents with a smaller share of printable characters are dropped (`binary`)."""


StepConfig = BoundsStep
