"""Run folders with real numbers in them, and a real MLflow server that can be killed."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmtrain.config.loader import dump_config
from llmtrain.shards.manifest import ShardEntry, ShardManifest, write_manifest
from llmtrain.tracking.run_folder import RunWriter, read_metrics
from tests.helpers.configs import load_tiny_config


class Server:
    """MLflow on a port of its own; `folder` outlives the process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("server.py")), str(self.port), str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=5).close()
                return
            except OSError:
                assert self._process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables without a run: making them takes seconds, copying them does not."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    assert MlflowClient(f"sqlite:///{path}").get_experiment_by_name("none") is None
    return path


@pytest.fixture
def server(tmp_path: Path, empty_database: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    shutil.copy(empty_database, server.folder / "server.db")
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts or databases that go to the current directory would show here."""
    monkeypatch.chdir(tmp_path)
    for name in ("REQUEST_TIMEOUT", "REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(f"MLFLOW_HTTP_{name}", "5" if name == "REQUEST_TIMEOUT" else "1")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def make_run(folder: Path, *overrides: str) -> Path:
    """A run folder under `folder/runs` that has its configuration and the manifest of one source."""
    config = load_tiny_config(folder, f"run.root={folder / 'runs'}", f"data.folder={folder / 'data'}", *overrides)
    config.run.folder.mkdir(parents=True)
    (config.run.folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    shards = folder / "data" / "shards" / "code" / "train"
    shards.mkdir(parents=True, exist_ok=True)
    entry = ShardEntry(file="shard-00000.tokens", bytes=200, token_count=100, document_count=3, sha256="0" * 64)
    manifest: dict[str, Any] = {"vocab_size": 400, "bos_id": 1, "eos_id": 2, "tokenizer_sha256": "1" * 64}
    manifest |= {"source": "code", "split": "train", "licence": "PSF-2.0", "provenance": {}, "shards": [entry]}
    write_manifest(shards, ShardManifest(**manifest))
    return config.run.folder


def log_steps(writer: RunWriter, first: int, last: int, offset: float = 0.0) -> None:
    """Two lines of metrics for each step, as training writes them."""
    for step in range(first, last + 1):
        writer.log_metrics(step, {"train/loss": 5 - step / 100 + offset, "perf/tokens_per_second": 1000.0 + step})
        writer.log_metrics(step, {"validation/loss": 5.5 - step / 100 + offset})


def read_mirrored(uri: str, run_id: str, folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every metric of the run folder as MLflow holds it."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    return {
        name: sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, name))
        for name in read_metrics(folder)
    }
