"""What costs many seconds and is shared by the whole session: a prepared corpus, and a finished run on it."""

import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.commands import run_command
from tests.helpers.configs import TINY


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and prepared data: two packages of the standard library."""
    folder = tmp_path_factory.mktemp("project")
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    config: dict[str, Any] = {name: dict(section) for name, section in TINY.items()}
    config["corpus"] = {
        "sources": {
            name: {"kind": "code", "paths": [str(stdlib / name)], "licence": "PSF-2.0"} for name in ("json", "email")
        },
        "tokenizer": {"vocab_size": 400, "train_characters": 200_000},
        "validation_fraction": 0.3,
    }
    config["training"] |= {"log_every_steps": 1}
    config["sampling"] = {"prompts": ["def "], "max_new_tokens": 8}
    config["evaluation"] = {"sequences_per_source": 8, "evaluate_every_steps": 5}
    config["tracking"] = {"mlflow": False, "peak_flops": 1e12}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    result = run_command(folder, "data", "prepare", "tiny.yaml")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def main_run(project: Path) -> Path:
    """The run folder of the main job: ten steps on two ranks, saved at 5 and 10, mirrored, exported."""
    overrides = ["run.name=main", "tracking.mlflow=true", "tracking.system_interval_seconds=1"]
    overrides += ["checkpoint.save_every_steps=5"]
    result = run_command(project, "run", "tiny.yaml", "--nproc", "2", *overrides)
    assert result.returncode == 0, result.stderr
    assert "up to date" in result.stderr
    assert "bigram" in result.stdout
    assert "def " in result.stdout
    return project / "runs" / "main"
