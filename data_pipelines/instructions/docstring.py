"""Kind `docstring`: a short Python function from its name and description.

def flatten(items): "Return one list."    ->    Write a Python function `flatten` that returns one list.
"""

import re
from collections.abc import Iterator

from data_pipelines.document import Document
from data_pipelines.instructions.draft import Draft
from data_pipelines.instructions.python_functions import PythonFunction, find_functions
from data_pipelines.instructions.sentences import word_set
from llmtrain.config.instructions import InstructionsConfig

_VERBS = word_set(
    "add append apply assert attach break build calculate call cancel change check clean clear close collect "
    "combine compare compile compute connect construct convert copy count create decide decode delete determine "
    "disable discard display do dump emit empty enable encode ensure enter evaluate execute expand extract fetch "
    "fill find finish flush force format generate get give handle ignore import indicate initialize insert install "
    "invoke iterate join keep kill launch list load lock log look make map mark match merge modify move normalize "
    "notify open pack parse perform pop prepare print process produce provide push put raise read recognize record "
    "register release reload remove rename render replace report request reset resolve restore retrieve return "
    "reverse run save scan schedule search select send serialize set show shut signal skip sort split start stop "
    "store strip swap switch take tell terminate test transform translate traverse try turn undo unlock unpack "
    "unregister update use validate verify visit wait walk warn wrap write yield"
)
_FIRST = re.compile(r"^([A-Z][a-z]+) ")


def find_docstring_tasks(document: Document, _: InstructionsConfig) -> Iterator[Draft]:
    """Drafts of a Python document."""
    for function in find_functions(document):
        yield Draft(_ask(function), function.code, document.origin)


def _ask(function: PythonFunction) -> str:
    thing, text = "method" if function.is_method else "function", function.description
    first = _FIRST.match(text)
    verb = first[1].lower() if first else ""
    if verb in _VERBS:
        return f"Write a Python {thing} `{function.name}` that {_conjugate(verb)}{text[len(verb) :]}"
    if verb.endswith("s") and (verb[:-1] in _VERBS or verb.removesuffix("es") in _VERBS):
        return f"Write a Python {thing} `{function.name}` that {verb}{text[len(verb) :]}"
    return f"Write a Python {thing} `{function.name}`. {text}"


def _conjugate(verb: str) -> str:
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return f"{verb}es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ies"
    return f"{verb}s"
