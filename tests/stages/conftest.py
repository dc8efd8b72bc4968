import shutil
from pathlib import Path

import pytest


@pytest.fixture
def run_folder(project: Path, main_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished run, to damage, with the project as the working folder."""
    monkeypatch.chdir(project)
    return Path(shutil.copytree(main_run, tmp_path / "runs" / "main", ignore=shutil.ignore_patterns("export")))


@pytest.fixture
def own_project(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project without runs, to damage, as the working folder."""
    copy = Path(shutil.copytree(project, tmp_path / "project", ignore=shutil.ignore_patterns("runs")))
    monkeypatch.chdir(copy)
    return copy
