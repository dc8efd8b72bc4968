"""Short Python functions with a docstring of one sentence, read and never run."""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from data_pipelines.document import Document

_SENTENCE = re.compile(r"^[A-Z][a-z]+ [^\n]*[a-z\d)'\"`\]]\.?$")
_MIN_WORDS = 3
_MAX_LINES = 12


@dataclass(frozen=True)
class PythonFunction:
    """A function without its docstring and decorators, at the left margin."""

    name: str
    is_method: bool
    code: str
    description: str
    """Its docstring, which ends with a full stop."""


def find_functions(document: Document) -> Iterator[PythonFunction]:
    """Functions of a document in Python that do something; none if it is not Python or of an older one."""
    if document.language != "python":
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in text that is not ours
            tree = ast.parse(document.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = document.text.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = _parse(node, lines)
            if function is not None:
                yield function


def _parse(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> PythonFunction | None:
    text = re.sub(r" +", " ", ast.get_docstring(node) or "")
    if not _SENTENCE.match(text) or len(text.split()) < _MIN_WORDS or not _does_something(node):
        return None
    docstring = node.body[0]
    end = node.end_lineno or node.lineno
    if docstring.lineno == node.lineno or end - node.lineno > _MAX_LINES + 1:
        return None
    kept = lines[node.lineno - 1 : docstring.lineno - 1] + lines[docstring.end_lineno or docstring.lineno : end]
    code = textwrap.dedent("\n".join(line.rstrip() for line in kept if line.strip()))
    if not _parses(code):
        return None
    arguments = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    is_method = arguments[:1] in (["self"], ["cls"])
    return PythonFunction(node.name, is_method, code, text if text.endswith(".") else f"{text}.")


def _does_something(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    body = node.body[1:]
    return bool(body) and not (
        len(body) == 1 and isinstance(body[0], ast.Pass | ast.Raise | ast.Expr) and _is_empty(body[0])
    )


def _is_empty(statement: ast.stmt) -> bool:
    return not isinstance(statement, ast.Expr) or isinstance(statement.value, ast.Constant)


def _parses(code: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except SyntaxError:
        return False
    return True
