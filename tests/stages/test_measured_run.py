"""Finished runs as measurements: the median interval of the last attempt; folders that are none say why."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from llmtrain.errors import ConfigError
from llmtrain.stages.measured_run import read_measured_run
from tests.stages.finished_runs import load_run_workload, write_finished_run, write_intervals


def test_a_run_is_its_workload_and_the_median_without_the_first_interval(tmp_path: Path) -> None:
    run = read_measured_run(write_finished_run(tmp_path, "a", 2, [0.2, 0.9, 0.3], "parallel.zero_stage=2"))
    assert run.work == load_run_workload(tmp_path, 2, "parallel.zero_stage=2")
    assert run.intervals == (0.2, 0.9, 0.3)
    assert run.step_seconds == 0.3


def test_only_the_last_attempt_that_took_steps_counts(tmp_path: Path) -> None:
    folder = write_finished_run(tmp_path, "a", 2, [0.2, 0.3])
    write_intervals(folder, [5.0, 0.7, 0.8], first_step=30)
    write_intervals(folder, [], first_step=60)  # finished, and started once more
    assert read_measured_run(folder).intervals == (0.7, 0.8)


def test_a_single_interval_is_all_there_is(tmp_path: Path) -> None:
    assert read_measured_run(write_finished_run(tmp_path, "a", 2, [])).intervals == (60.0,)


def test_folders_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    run = write_finished_run(tmp_path, "a", 2, [0.2])

    def refuse(message: str, folder: Path = run) -> None:
        with pytest.raises(ConfigError) as error:
            read_measured_run(folder)
        assert message in str(error.value)

    refuse("no run here, config.yaml is missing. Give a run folder", tmp_path / "absent")
    stage = run / "sft"
    stage.mkdir()
    (stage / "stage.json").write_text(json.dumps({"inputs": "x"}))
    refuse(f"the folder of a post-training stage; `llmtrain plan` foretells pretraining. Give the run folder: {run}.",
           stage)  # fmt: skip

    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"parameters": 5}))
    refuse("the model had 5 parameters, with the 300 ids of data.folder = absent it has ")
    (run / "summary.json").unlink()
    refuse(f"not finished, summary.json is missing. Finish it: llmtrain pretrain {run / 'config.yaml'}; or give")
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "metrics.jsonl").unlink()
    refuse("metrics.jsonl holds no perf/step_seconds. Give a run whose metrics were not removed.")
    kept = {key: value for key, value in yaml.safe_load((run / "config.yaml").read_text()).items() if key == "run"}
    (run / "config.yaml").write_text(yaml.safe_dump(kept | {"sft": {}}))
    refuse("config.yaml has no section model: a run of post-training only, without steps of pretraining.")
    shutil.rmtree(run)
    refuse("no run here")
