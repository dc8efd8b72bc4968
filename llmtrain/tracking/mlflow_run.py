"""One run in MLflow, fed from a run folder. Used by the mirror's process only: importing MLflow takes seconds.

What was sent is remembered in `mlflow.json` after it was sent. Sending the same number again changes nothing, as MLflow
keeps a (metric, step, time, value) once; so nothing is lost or doubled, wherever the process is killed.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import yaml
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

from llmtrain.config.compare import flatten
from llmtrain.config.loader import validate_stage
from llmtrain.config.root import Config, PosttrainingConfig
from llmtrain.tracking.redaction import redact
from llmtrain.tracking.run_folder import (
    EVENTS_NAME,
    METRICS_NAME,
    SAMPLES_NAME,
    SUMMARY_MARKDOWN,
    SUMMARY_NAME,
    read_lines,
    read_summary,
    write_whole,
)
from llmtrain.tracking.stage_folder import find_root, find_run, name_pipeline, read_stage
from llmtrain.tracking.summary import find_commit, find_versions, render_summary
from llmtrain.tracking.system_metrics import SYSTEM_NAME

STATE_NAME, SAMPLES_TABLE = "mlflow.json", "samples.json"
_BATCH_METRICS = 800
_MAX_PARAMETER = 500
_PREPARED = ("input_bytes", "documents", "characters", "dropped", "changed", "languages", "lengths", "seconds")
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "diverged": "FAILED"}


def find_tracking_uri(config: PosttrainingConfig, run_folder: Path) -> str:
    """The server of the configuration, or the database beside the run folders."""
    return config.tracking.tracking_uri or f"sqlite:///{find_root(run_folder) / 'mlflow.db'}"


class MlflowRun:
    """Sends what a run folder holds and MLflow has not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = validate_stage(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")), {})
        self._stage = read_stage(folder)
        self._client = MlflowClient(tracking_uri=find_tracking_uri(self._config, folder))
        path = folder / STATE_NAME
        self._state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def send(self) -> None:
        """Send everything new. Raises whatever MLflow raises when it is away."""
        if "run_id" not in self._state:
            self._create_run()
        if "described" not in self._state:
            self._describe_run()
        self._send_metrics(METRICS_NAME)
        self._send_metrics(SYSTEM_NAME)
        self._send_samples()

    def reopen(self) -> None:
        """Mark a run that continues as running."""
        if "run_id" in self._state:
            self._client.update_run(self._state["run_id"], status="RUNNING")

    def finish(self) -> None:
        """Send the summary and the status that the last event tells."""
        run_id = self._state["run_id"]
        summary_path = self._folder / SUMMARY_NAME
        if summary := read_summary(self._folder):
            page = self._folder / SUMMARY_MARKDOWN
            text = page.read_text(encoding="utf-8") if page.exists() else render_summary(summary)
            self._client.set_tag(run_id, "mlflow.note.content", text)
            self._client.log_artifact(run_id, str(summary_path))
            for path in (*self._folder.glob("*.png"), *self._folder.glob("report.md")):
                self._client.log_artifact(run_id, str(path))
        events = read_lines(self._folder / EVENTS_NAME)
        event = events[-1]["event"] if events else ""
        # A killed run wrote no last event; what it measured last is when it ended.
        lines = [*events, *read_lines(self._folder / METRICS_NAME)]
        end_time = int(1000 * max(line["time"] for line in lines)) if lines else None
        self._client.set_terminated(run_id, _STATUS.get(event, "FAILED"), end_time)

    def _create_run(self) -> None:
        name = self._config.tracking.experiment
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            experiment_id = experiment.experiment_id
        else:
            # Without a location of its own a database would put artifacts into the current directory.
            location = find_root(self._folder) / "mlflow-artifacts"
            is_local = self._config.tracking.tracking_uri is None
            experiment_id = self._client.create_experiment(name, location.as_uri() if is_local else None)
        events = read_lines(self._folder / EVENTS_NAME)
        start_time = int(1000 * events[0]["time"]) if events else None
        name = "/".join([self._config.run.name, *([self._stage["stage"]] if self._stage else [])])
        run = self._client.create_run(experiment_id, start_time, run_name=name)
        self._remember(run_id=run.info.run_id, experiment_id=experiment_id)

    def _describe_run(self) -> None:
        run_id = self._state["run_id"]
        leaves = flatten(self._config)
        if self._stage:  # the other sections are those of other runs
            kept = ("run.", "tracking.", f"{self._stage['stage']}.")
            leaves = {key: value for key, value in leaves.items() if key.startswith(kept)}
        parameters = {key: redact(str(value))[:_MAX_PARAMETER] for key, value in leaves.items()}
        items = [Param(key, value) for key, value in parameters.items()]
        for start in range(0, len(items), 100):
            self._client.log_batch(run_id, params=items[start : start + 100])
        tags = {"llmtrain.commit": find_commit() or "unknown", "llmtrain.stage": self._stage.get("stage", "pretrain")}
        tags |= {"llmtrain.pipeline": name_pipeline(self._folder), **self._find_parents()}
        tags |= {f"version.{name}": version for name, version in find_versions().items()}
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        self._client.log_text(run_id, redact((self._folder / "config.yaml").read_text(encoding="utf-8")), "config.yaml")
        if self._stage:
            self._client.log_inputs(run_id, self._list_inputs())
        elif isinstance(self._config, Config):
            inputs = [self._describe_source(path, self._config) for path in self._find_manifests(self._config)]
            self._client.log_inputs(run_id, inputs)
            page = self._config.data.folder / "report.html"
            if page.is_file():
                self._client.log_artifact(run_id, str(page), "data")
        self._remember(described=True)

    def _find_parents(self) -> dict[str, str]:
        """Tags that tell which runs made the models that this stage starts from; the page nests it under the first."""
        if not self._stage:
            return {}
        folders = {Path(model).parent for model in self._stage["models"].values()}
        found = {folder.name: _read_run_id(folder) for folder in sorted(folders)}
        tags = {f"llmtrain.parent_run.{name}": run_id for name, run_id in found.items() if run_id}
        pretraining = _read_run_id(find_run(self._folder))
        return tags | ({"mlflow.parentRunId": pretraining} if pretraining else {})

    def _list_inputs(self) -> list[DatasetInput]:
        """Files of records and models of a stage, by their digests."""
        inputs = []
        for name, digest in self._stage["parts"].items():
            kind, _, what = name.partition(" ")
            if kind in ("file", "model"):
                uri = self._stage["models"].get(what, what)
                shown = f"{what}: {uri}" if kind == "model" else "/".join(Path(uri).parts[-2:])
                source = json.dumps({"uri": uri})
                dataset = Dataset(name=shown[-200:], digest=digest[:36], source_type="local", source=source)
                inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", kind)]))
        return inputs

    def _find_manifests(self, config: Config) -> list[Path]:
        shards = config.data.folder / "shards"
        names = list(config.data.sources) or sorted(path.name for path in shards.glob("*") if path.is_dir())
        paths = [shards / name / split / "manifest.json" for name in names for split in ("train", "validation")]
        return [path for path in paths if path.exists()]

    def _describe_source(self, path: Path, config: Config) -> DatasetInput:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        # MLflow shows 36 characters of a digest.
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:36]
        profile = {
            "tokens": sum(shard["token_count"] for shard in manifest["shards"]),
            "documents": sum(shard["document_count"] for shard in manifest["shards"]),
            "licence": manifest["licence"],
            **(_read_report(config, manifest["source"]) if manifest["split"] == "train" else {}),
        }
        dataset = Dataset(
            name=f"{manifest['source']}/{manifest['split']}",
            digest=digest,
            source_type="local",
            source=json.dumps({"uri": str(path.parent)}),
            profile=json.dumps(profile),
        )
        context = "training" if manifest["split"] == "train" else "evaluation"
        return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])

    def _send_metrics(self, name: str) -> None:
        lines = self._new_lines(name)
        batch: list[Metric] = []
        for position, line in enumerate(lines):
            time_ms = int(line["time"] * 1000)
            batch += [Metric(key, value, time_ms, line["step"]) for key, value in line["metrics"].items()]
            if len(batch) >= _BATCH_METRICS or position == len(lines) - 1:
                self._client.log_batch(self._state["run_id"], metrics=batch)
                self._move_cursor(name, lines[: position + 1])
                batch = []

    def _send_samples(self) -> None:
        """Write the table anew when a line came; adding to it could double a line when the process is killed."""
        lines = read_lines(self._folder / SAMPLES_NAME)
        last = [len(lines), lines[-1]["time"]] if lines else None
        if last is None or self._state.get(SAMPLES_NAME) == last:
            return
        # A run of pretraining writes text alone, a stage of post-training also what it is worth.
        columns = [name for name in lines[-1] if name != "time"]
        lines = [line for line in lines if all(name in line for name in columns)]
        table = {"columns": columns, "data": [[line[column] for column in columns] for line in lines]}
        self._client.log_dict(self._state["run_id"], table, SAMPLES_TABLE)
        # The tag is what makes MLflow's pages offer the file as a table.
        tables = json.dumps([{"path": SAMPLES_TABLE, "type": "table"}])
        self._client.set_tag(self._state["run_id"], MLFLOW_LOGGED_ARTIFACTS, tables)
        self._remember(**{SAMPLES_NAME: last})

    def _new_lines(self, name: str) -> list[dict[str, Any]]:
        """Lines after the cursor: steps beyond the last one sent, and further lines of that step.

        A resumed run writes the lines of some steps again; those were sent and are passed over.
        """
        step, count = self._state.get(name, (-1, 0))
        lines = read_lines(self._folder / name)
        return [line for line in lines if line["step"] == step][count:] + [
            line for line in lines if line["step"] > step
        ]

    def _move_cursor(self, name: str, sent: list[dict[str, Any]]) -> None:
        step, count = self._state.get(name, (-1, 0))
        last = sent[-1]["step"]
        at_last = sum(line["step"] == last for line in sent)
        self._remember(**{name: (last, at_last + (count if last == step else 0))})

    def _remember(self, **values: Any) -> None:
        self._state |= values
        write_whole(self._folder / STATE_NAME, json.dumps(self._state) + "\n")


def _read_report(config: Config, source: str) -> dict[str, Any]:
    """What the preparation of the data counted of a source, both splits together."""
    path = config.data.folder / "report.json"
    if not path.is_file():
        return {}
    row = json.loads(path.read_text(encoding="utf-8")).get(source, {})
    return {f"prepared_{key}": row[key] for key in _PREPARED if key in row}


def _read_run_id(folder: Path) -> str | None:
    """The MLflow run of a run folder, if it has one."""
    path = folder / STATE_NAME
    return json.loads(path.read_text(encoding="utf-8")).get("run_id") if path.is_file() else None


def limit_waiting() -> None:
    """Make MLflow's client give up soon: by default a call waits four minutes for a server that is away."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
