"""What benchmarks share that compare us with tools in environments of their own."""

import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from data_pipelines.document import read_documents

SOURCES = ("web", "wikipedia")


def read_texts(data: Path, every: int) -> list[str]:
    """One of `every` documents of prepared data: web pages and Wikipedia."""
    documents = [document for name in SOURCES for document in read_documents(data / "documents" / f"{name}.jsonl.zst")]
    return [document.text for document in documents[::every]]


def run_script(script: Path, python: Path, *arguments: str) -> dict[str, Any]:
    """Run a benchmark's own script in some environment; what it prints last is its result."""
    command = [str(python), str(script.resolve()), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(f"{arguments} failed:\n{process.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


def describe_machine() -> dict[str, Any]:
    """The processor, as Linux names it."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"processor": found[1] if found else platform.machine(), "cores_used": 1, "cores": os.cpu_count()}


def read_versions(python: Path, *names: str) -> dict[str, str]:
    """Versions of packages in some environment."""
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {names}}}))"
    versions: dict[str, str] = json.loads(subprocess.check_output([str(python), "-c", code], text=True))
    return versions
