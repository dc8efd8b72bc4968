"""Which stages run and why, told from real folders; what is done again is put aside whole."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmtrain.checkpoint.manifest import Manifest, encode_manifest
from llmtrain.config.loader import LoadedConfig, dump_config, load_config
from llmtrain.config.pipeline import POSTTRAINING, PipelineStage, PosttrainingStage
from llmtrain.config.root import Config, PosttrainingConfig
from llmtrain.errors import CheckpointError, ConfigError
from llmtrain.stages import pipeline
from llmtrain.stages.pipeline import list_stages, plan_pipeline, print_pipeline, run_pipeline
from llmtrain.stages.run_folder import locked_run_folder
from llmtrain.stages.stage_inputs import find_inputs
from llmtrain.tracking.run_folder import RunWriter
from tests.helpers.configs import write_tiny_config

SAME = "finished with the same inputs"
STAGES: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 1e-3, "data": {"chats": {"paths": ["chats.jsonl"]}}},
    "reward": {"learning_rate": 1e-3, "data": {"pairs": {"paths": ["pairs.jsonl"]}}},
    "ppo": {"learning_rate": 1e-3, "train_steps": 3},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the records of all stages."""
    monkeypatch.chdir(tmp_path)
    for name in ("chats", "pairs"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"{name}": 1}}\n')
    return tmp_path


def load(folder: Path, *overrides: str, **sections: dict[str, Any]) -> LoadedConfig[Config]:
    """The tiny configuration with all stages, or with those that are given."""
    return load_config([write_tiny_config(folder, model={"vocab_size": 400}, **(sections or STAGES))], overrides)


def write_model(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(str(folder).encode())


def write_checkpoint(run: Path, step: int, digest: str) -> None:
    checkpoint = run / "checkpoints" / f"step-{step:08d}"
    checkpoint.mkdir(parents=True)
    counts: dict[str, Any] = {
        "step": step,
        "consumed_samples": 8 * step,
        "optimizer_step": step,
        "validation_loss": None,
    }
    empty: dict[str, Any] = {name: {} for name in ("progress", "tensors", "files", "config", "layout", "versions")}
    manifest = Manifest.model_validate(counts | empty | {"weights_digest": digest * 16, "parent": None})
    (checkpoint / "manifest.json").write_bytes(encode_manifest(manifest))


def finish_pretraining(config: Config) -> None:
    """What pretraining and its export leave behind."""
    run = config.run.folder
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(dump_config(config))
    writer = RunWriter(run)
    writer.log_event("started")
    writer.log_event("finished")
    writer.write_summary({"train_steps": 10, "train_tokens": 1280})
    writer.close()
    write_checkpoint(run, 10, "a")
    write_model(run / "export")
    (run / "export" / "README.md").write_text(f"Weights digest {'a' * 16}, tokenizer")


def finish_stage(config: PosttrainingConfig, name: PosttrainingStage, is_finished: bool = True) -> Path:
    """What a stage leaves behind."""
    folder = config.run.folder / name
    inputs = find_inputs(config, name)
    write_model(folder / "model")
    (folder / "stage.json").write_text(json.dumps(inputs.to_dict() | {"finished": inputs.digest * is_finished or None}))
    return folder


def finish_all(folder: Path) -> Config:
    config = load(folder).config
    finish_pretraining(config)
    for name in POSTTRAINING:
        finish_stage(config, name)
    return config


def explain(config: Config, first: PipelineStage | None = None, only: PipelineStage | None = None) -> dict[str, str]:
    """Stage -> why; one that does not run has `skip: ` before it."""
    return {step.name: f"{'' if step.runs else 'skip: '}{step.why}" for step in plan_pipeline(config, first, only)}


def test_a_configuration_has_the_stages_of_its_sections(folder: Path) -> None:
    assert list_stages(load(folder, training={}).config) == ["pretrain", "export"]
    assert list_stages(load(folder).config) == ["pretrain", "export", "sft", "reward", "ppo", "report"]
    made = load(folder, instructions={}, sft={"learning_rate": 1e-3}).config
    assert list_stages(made) == ["data", "pretrain", "export", "sft", "report"]


def test_where_nothing_is_everything_runs(folder: Path) -> None:
    assert explain(load(folder).config) == {
        "pretrain": "not started",
        "export": "pretraining made no checkpoint yet",
        "sft": "not started",
        "reward": "not started",
        "ppo": "not started",
        "report": "drawn from the summaries",
    }


def test_what_is_finished_is_not_done_again(folder: Path) -> None:
    found = explain(finish_all(folder))
    assert found.pop("report") == "drawn from the summaries"
    assert set(found.values()) == {f"skip: {SAME}"}


def test_pretraining_that_did_not_end_goes_on(folder: Path) -> None:
    config = finish_all(folder)
    events = config.run.folder / "events.jsonl"
    with events.open("a") as file:
        file.write('{"time": 3.0, "event": "started"}\n')
    assert explain(config)["pretrain"] == "not finished"
    events.write_text('{"time": 3.0, "event": "finished"}\n{"time": 4.0, "ev')  # torn by a kill
    assert explain(config)["pretrain"] == f"skip: {SAME}"
    events.write_text("")
    assert explain(config)["pretrain"] == "not started"


@pytest.mark.parametrize("text", [None, "", '{"train_steps": 1'])
def test_a_summary_that_is_missing_or_torn_is_written_again(folder: Path, text: str | None) -> None:
    config = finish_all(folder)
    summary = config.run.folder / "summary.json"
    summary.unlink()
    if text is not None:
        summary.write_text(text)
    assert explain(config)["pretrain"] == "not finished"
    assert not RunWriter(config.run.folder).has_summary  # so the run that follows writes one


def test_a_longer_pretraining_goes_on(folder: Path) -> None:
    finish_all(folder)
    config = load(folder, "training.train_steps=20").config
    assert explain(config)["pretrain"] == "10 steps done of 20"


def test_a_horizon_in_tokens_is_rounded_up_to_steps(folder: Path) -> None:
    finish_all(folder)
    for tokens, why in ((1153, f"skip: {SAME}"), (1280, f"skip: {SAME}"), (1281, "10 steps done of 11")):
        overrides = ["training.train_steps=null", f"training.train_tokens={tokens}"]
        assert explain(load(folder, *overrides).config)["pretrain"] == why
    shorter = load(folder, "training.train_steps=null", "training.train_tokens=640").config
    assert explain(shorter)["pretrain"] == "10 steps done of 5"


def test_another_run_in_the_folder_is_refused_by_name(folder: Path) -> None:
    finish_all(folder)
    with pytest.raises(ConfigError, match=r"run\.seed: 7 there, 8 here"):
        explain(load(folder, "run.seed=8").config)


def test_an_export_of_another_checkpoint_is_made_again(folder: Path) -> None:
    config = finish_all(folder)
    write_checkpoint(config.run.folder, 12, "b")
    assert explain(config)["export"] == "the newest checkpoint is another one"
    (config.run.folder / "export" / "README.md").unlink()
    assert explain(config)["export"] == "not exported"


def test_a_stage_that_did_not_end_goes_on(folder: Path) -> None:
    config = finish_all(folder)
    finish_stage(config, "reward", is_finished=False)
    assert explain(config)["reward"] == "not finished"
    assert explain(config)["ppo"] == f"skip: {SAME}"


def test_a_stage_folder_that_is_empty_is_not_started(folder: Path) -> None:
    config = finish_all(folder)
    shutil.rmtree(config.run.folder / "ppo")
    (config.run.folder / "ppo").mkdir()
    assert explain(config)["ppo"] == "not started"


@pytest.mark.parametrize("name", POSTTRAINING)
def test_a_changed_section_runs_its_stage_and_says_so(folder: Path, name: str) -> None:
    finish_all(folder)
    found = explain(load(folder, f"{name}.learning_rate=0.5").config)
    runs = {stage: why for stage, why in found.items() if not why.startswith("skip")}
    assert runs == {name: f"changed: {name}.learning_rate: 0.001 there, 0.5 here", "report": "drawn from the summaries"}


def test_changed_records_and_models_are_named(folder: Path) -> None:
    config = finish_all(folder)
    (folder / "chats.jsonl").write_text("{}\n")
    (config.run.folder / "reward" / "model" / "model.safetensors").write_bytes(b"other")
    found = explain(config)
    assert found["sft"] == "changed: file chats.jsonl"
    assert found["ppo"] == "changed: file chats.jsonl, model reward model"


def test_a_stage_whose_parent_is_gone_says_how_to_make_it(folder: Path) -> None:
    config = finish_all(folder)
    shutil.rmtree(config.run.folder / "reward" / "model")
    assert "no model there" in explain(config)["ppo"]
    assert "llmtrain reward CONFIG" in explain(config)["ppo"]


def test_from_a_stage_on_those_before_it_are_left_alone(folder: Path) -> None:
    config = finish_all(folder)
    shutil.rmtree(config.run.folder / "checkpoints")
    found = explain(config, first="sft")
    assert found["pretrain"] == found["export"] == "skip: before --from sft"
    assert found["sft"] == "asked for"
    assert found["reward"] == f"skip: {SAME}"


def test_only_one_stage_is_looked_at(folder: Path) -> None:
    assert explain(load(folder).config, only="report") == {"report": "asked for"}
    with pytest.raises(ConfigError, match=r"--from sft and --only ppo say different things. Give one of them."):
        explain(load(folder).config, first="sft", only="ppo")


@pytest.mark.parametrize("asked", [{"first": "ppo"}, {"only": "ppo"}])
def test_a_stage_that_the_configuration_lacks_is_refused(folder: Path, asked: dict[str, Any]) -> None:
    config = load(folder, sft=STAGES["sft"]).config
    with pytest.raises(ConfigError) as caught:
        explain(config, **asked)
    assert str(caught.value) == (
        "stage 'ppo': the configuration has no such stage. It has pretrain, export, sft, report."
    )


class Launches:
    """Stands in for processes: a stage ends at once, with a model of other weights, or with an exit code."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, codes: dict[str, int]) -> None:
        self.done: list[str] = []
        self.codes = codes
        monkeypatch.setattr(pipeline, "launch_stage", self.launch_stage)
        monkeypatch.setattr(pipeline, "launch_pretrain", self.launch_pretrain)

    def launch_stage(self, config: PosttrainingConfig, name: PosttrainingStage, num_ranks: int) -> int:
        self.done.append(name)
        if not self.codes.get(name):
            finish_stage(config, name)
        return self.codes.get(name, 0)

    def launch_pretrain(self, loaded: LoadedConfig[Config], num_ranks: int) -> int:
        self.done.append("pretrain")
        return self.codes.get("pretrain", 0)


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Launches]:
    return lambda **codes: Launches(monkeypatch, codes)


def run(loaded: LoadedConfig[Config], **asked: Any) -> int:
    return run_pipeline(loaded, 1, lambda config: None, **asked)


def test_the_first_stage_that_fails_ends_the_run_with_its_code(folder: Path, launch: Callable[..., Launches]) -> None:
    launches = launch(pretrain=17)
    assert run(load(folder)) == 17
    assert launches.done == ["pretrain"]
    config = finish_all(folder)
    for name in POSTTRAINING:
        shutil.rmtree(config.run.folder / name)
    launches = launch(reward=75)
    assert run(load(folder)) == 75
    assert launches.done == ["sft", "reward"]
    assert not (config.run.folder / "report.md").exists()


def test_only_what_changed_is_done_and_the_rest_is_told(
    folder: Path, launch: Callable[..., Launches], capsys: pytest.CaptureFixture[str]
) -> None:
    finish_all(folder)
    launches = launch()
    assert run(load(folder, "ppo.train_steps=9", "tracking.mlflow=false"), first="reward") == 0
    assert launches.done == ["reward", "ppo"]
    told = capsys.readouterr().err
    assert "sft: before --from reward\nreward: asked for\nppo: changed: ppo.train_steps: " in told
    assert (folder / "runs" / "tiny" / "report.md").is_file()
    assert sorted(path.name.partition("-")[0] for path in (folder / "runs/tiny/old").iterdir()) == ["ppo", "reward"]


def list_files(folder: Path, *without: str) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in without]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize(("override", "asked"), [("ppo.train_steps=9", {}), ("ppo.train_steps=3", {"only": "ppo"})])
def test_the_old_folder_is_put_aside_whole(
    folder: Path, launch: Callable[..., Launches], override: str, asked: dict[str, Any]
) -> None:
    stage = finish_all(folder).run.folder / "ppo"
    RunWriter(stage).log_metrics(1, {"train/loss": 1.0})
    before = list_files(stage)
    launch()
    assert run(load(folder, override, "tracking.mlflow=false"), **asked) == 0
    (old,) = (folder / "runs" / "tiny" / "old").iterdir()
    assert list_files(old, "run.lock", "mlflow.lock") == before
    assert not (stage / "metrics.jsonl").exists()


def test_a_stage_that_goes_on_or_is_new_is_not_put_aside(folder: Path, launch: Callable[..., Launches]) -> None:
    config = finish_all(folder)
    finish_stage(config, "reward", is_finished=False)
    shutil.rmtree(config.run.folder / "ppo")
    launches = launch()
    assert run(load(folder, "tracking.mlflow=false")) == 0
    assert launches.done == ["reward", "ppo"]
    assert not (config.run.folder / "old").exists()


def test_a_stage_that_cannot_start_again_is_not_put_aside(folder: Path, launch: Callable[..., Launches]) -> None:
    config = finish_all(folder)
    (config.run.folder / "reward" / "model" / "model.safetensors").unlink()
    launches = launch()
    with pytest.raises(CheckpointError, match=r"no model.safetensors"):
        run(load(folder), only="ppo")
    assert launches.done == []
    assert (config.run.folder / "ppo" / "stage.json").is_file()


def test_a_stage_that_another_process_runs_is_not_put_aside(folder: Path, launch: Callable[..., Launches]) -> None:
    stage = finish_all(folder).run.folder / "ppo"
    launches = launch()
    with locked_run_folder(stage), pytest.raises(ConfigError, match=r"a run is using this folder \(process \d+ on"):
        run(load(folder, "ppo.train_steps=9"))
    assert launches.done == []
    assert (stage / "stage.json").is_file()


def read_plan(text: str) -> Sequence[str]:
    """The last lines of the printed plan: those of stages."""
    return text.splitlines()[-6:]


def test_the_printed_plan_tells_what_runs_what_does_not_and_what_cannot_be_told_yet(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_all(folder)
    print_pipeline(load(folder, "sft.learning_rate=0.5"), 1, None, None)
    depends = f"depends on what sft makes; until then: {SAME}"
    assert read_plan(capsys.readouterr().out) == [
        f"pretrain  skip   {SAME}",
        f"export    skip   {SAME}",
        "sft       run    changed: sft.learning_rate: 0.001 there, 0.5 here",
        f"reward    maybe  {depends}",
        f"ppo       maybe  {depends}",
        "report    run    drawn from the summaries",
    ]
    assert not (folder / "runs" / "tiny" / "old").exists()


def test_what_is_printed_for_a_new_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_pipeline(load(folder, "instructions={}"), 2, None, "sft")
    assert read_plan(capsys.readouterr().out)[-1] == "sft       run    asked for"
    assert not (folder / "runs").exists()
