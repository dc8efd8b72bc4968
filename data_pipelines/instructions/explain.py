"""Kind `explain`: what a short Python function does.

What does this Python function do? def flatten(items): ...    ->    Return one list.
"""

from collections.abc import Iterator

from data_pipelines.document import Document
from data_pipelines.instructions.draft import Draft
from data_pipelines.instructions.python_functions import find_functions
from llmtrain.config.instructions import InstructionsConfig


def find_explanations(document: Document, _: InstructionsConfig) -> Iterator[Draft]:
    """Drafts of a Python document."""
    for function in find_functions(document):
        thing = "method" if function.is_method else "function"
        yield Draft(f"What does this Python {thing} do?\n\n{function.code}", function.description, document.origin)
