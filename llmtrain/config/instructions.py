"""Section `instructions`: records made from prepared documents."""

from typing import Literal

from llmtrain.config.section import PositiveInt, Section

InstructionKind = Literal["definition", "section", "docstring", "explain", "manual"]


class InstructionsConfig(Section):
    """Questions and answers taken from real text, and pairs of a real and a corrupted answer."""

    kinds: tuple[InstructionKind, ...] = ("definition", "section", "docstring", "explain", "manual")
    """What is made: encyclopedia definitions and sections, docstring to code, code to docstring, manual sentences."""
    max_records_per_kind: PositiveInt = 4000
    """Records of one kind at most."""
    max_prompt_characters: PositiveInt = 200
    """Longer prompts are left out and counted."""
    max_response_characters: PositiveInt = 200
    """Longer answers are left out and counted."""
