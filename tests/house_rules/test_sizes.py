"""Files and functions stay short; packages are not barrels; names are not vague."""

import ast
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80
MAX_ASSEMBLY_LINES = 100
VAGUE = {"utils", "common", "misc", "helpers", "core", "manager"}

FILES = [path for root in ("llmtrain", "data_pipelines") for path in sorted(Path(root).rglob("*.py"))]


def test_files_are_short() -> None:
    assert [f"{path}: {n}" for path in FILES if (n := len(path.read_text().splitlines())) > MAX_FILE_LINES] == []


def test_functions_are_short() -> None:
    wrong = []
    for path in FILES:
        limit = MAX_ASSEMBLY_LINES if "stages" in path.parts or path.name == "loop.py" else MAX_FUNCTION_LINES
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and (lines := (node.end_lineno or 0) - node.lineno + 1) > limit:
                wrong.append(f"{path}:{node.lineno} {node.name}: {lines}")
    assert wrong == []


def test_packages_hold_one_docstring_and_no_code() -> None:
    for path in FILES:
        if path.name == "__init__.py":
            body = ast.parse(path.read_text()).body
            assert len(body) == 1, path
            assert isinstance(body[0], ast.Expr), path


def test_no_module_has_a_vague_name() -> None:
    assert [str(path) for path in FILES if path.stem in VAGUE or path.parent.name in VAGUE] == []


def test_every_run_configuration_opens_with_the_command_that_runs_it() -> None:
    for path in Path("configs").rglob("*.yaml"):
        first = path.read_text().splitlines()[0]
        assert first.startswith("# "), path
        assert "llmtrain" in first or "launch/" in first, path
