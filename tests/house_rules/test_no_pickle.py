import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("llmtrain", "data_pipelines") for path in (ROOT / folder).rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"torch.load", "torch.save", "torch.jit.load", "pd.read_pickle", "pandas.read_pickle"}
FORBIDDEN_KEYWORDS = {"allow_pickle=True", "weights_only=False"}


def find_pickle(source: str) -> list[str]:
    """What in a module reads or writes pickles, as `line: name`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        elif isinstance(node, ast.keyword) and ast.unparse(node) in FORBIDDEN_KEYWORDS:
            found.append(f"{node.value.lineno}: {ast.unparse(node)}")
        for name in names:
            if name.split(".")[0] in FORBIDDEN_MODULES or name in FORBIDDEN_CALLS:
                found.append(f"{node.lineno}: {name}")  # type: ignore[attr-defined]
    return found


def test_no_module_reads_or_writes_pickles() -> None:
    assert SOURCES
    found = {str(path.relative_to(ROOT)): find_pickle(path.read_text()) for path in SOURCES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads as f",
        "import torch\nx = torch.load('a')",
        "from torch import load",
        "import numpy as np\nnp.load('a', allow_pickle=True)",
        "f(weights_only=False)",
    ],
)
def test_rule_sees_each_way_to_a_pickle(source: str) -> None:
    assert find_pickle(source)
