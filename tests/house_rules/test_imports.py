"""The import order of the packages, and what must start without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ORDER = [
    "errors",
    "config",
    "process",
    "tokenizer",
    "shards",
    "conversations",
    "plan",
    "data",
    "losses",
    "model",
    "optim",
]
ORDER += ["parallel", "checkpoint", "tracking", "training", "posttraining", "stages", "__main__"]
DATA_PIPELINES_MAY_IMPORT = {"errors", "config", "process", "tokenizer", "shards", "conversations"}
TORCH_FREE = (
    "llmtrain.config",
    "llmtrain.process",
    "llmtrain.plan",
    "llmtrain.tokenizer",
    "llmtrain.shards",
    "llmtrain.conversations",
)
ONLY_IN = {
    "deepspeed": {"parallel", "checkpoint"},
    "transformers": {"model", "posttraining"},
    "trl": {"posttraining"},
    "mlflow": {"tracking"},
}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.lineno, node.module or ""


def package_of(path: Path) -> str:
    parts = path.relative_to("llmtrain").parts
    return parts[0].removesuffix(".py")


def library_files() -> list[Path]:
    return [path for path in sorted(Path("llmtrain").rglob("*.py")) if path != Path("llmtrain/__init__.py")]


def test_packages_import_only_those_above_them() -> None:
    wrong = []
    for path in library_files():
        for line, module in imports(path):
            if module.startswith("llmtrain."):
                imported = module.split(".")[1]
                if ORDER.index(imported) > ORDER.index(package_of(path)):
                    wrong.append(f"{path}:{line} imports {module}")
    assert wrong == []


def test_the_library_never_imports_the_pipelines_but_for_the_door() -> None:
    wrong = [
        f"{path}:{line}"
        for path in library_files()
        for line, module in imports(path)
        if module.split(".")[0] == "data_pipelines" and package_of(path) != "__main__"
    ]
    assert wrong == []


def test_the_pipelines_import_only_what_they_share_with_the_library() -> None:
    wrong = [
        f"{path}:{line} imports {module}"
        for path in sorted(Path("data_pipelines").rglob("*.py"))
        for line, module in imports(path)
        if module.startswith("llmtrain.") and module.split(".")[1] not in DATA_PIPELINES_MAY_IMPORT
    ]
    assert wrong == []


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_heavy_libraries_are_spelled_in_few_packages(library: str) -> None:
    wrong = [
        f"{path}:{line}"
        for path in library_files()
        for line, module in imports(path)
        if module.split(".")[0] == library and package_of(path) not in ONLY_IN[library]
    ]
    assert wrong == []


def test_torch_free_packages_start_without_torch() -> None:
    modules = [
        ".".join(path.with_suffix("").parts)
        for root in (*(name.replace(".", "/") for name in TORCH_FREE), "data_pipelines")
        for path in sorted(Path(root).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    code = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "assert 'torch' not in sys.modules, 'torch'\nassert 'mlflow' not in sys.modules, 'mlflow'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
