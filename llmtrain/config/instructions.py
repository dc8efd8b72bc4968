"""Section `instructions`: questions, answers and preferences made from the documents of `data.folder`."""

from typing import Literal

from pydantic import Field

from llmtrain.config.section import PositiveInt, Section

# Folder of the made records, in the data folder.
MADE_NAME = "posttraining"
InstructionKind = Literal["definition", "section", "docstring", "explain", "manual"]


class InstructionsConfig(Section):
    """What is made. Every answer is text that stands in a document; nothing is invented."""

    kinds: tuple[InstructionKind, ...] = Field(
        default=("definition", "section", "docstring", "explain", "manual"), min_length=1
    )
    """`definition`: what something is, from an encyclopedia. `section`: the beginning of a section of an article.
    `docstring`: a short Python function from its description. `explain`: the description from the function. `manual`:
    what something in a manual is or does."""
    max_records_per_kind: PositiveInt = 4000
    """Records of one kind; of more, those with the lowest hashes stay, so that all documents have an equal chance."""
    max_prompt_characters: PositiveInt = 200
    """Longer prompts are left out. About a quarter of it is the number of tokens."""
    max_response_characters: PositiveInt = 200
    """Longer answers are left out; those of several sentences end with the last sentence that fits."""
