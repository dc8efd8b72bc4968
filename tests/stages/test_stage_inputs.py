"""What decides the result of a stage, and nothing else, changes its hash."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmtrain.config.loader import load_config, load_stage_config
from llmtrain.config.root import PosttrainingConfig
from llmtrain.errors import CheckpointError, ConfigError
from llmtrain.stages.stage_inputs import StageInputs, fill_in, find_inputs
from llmtrain.tracking.stage_folder import STAGE_NAME, read_stage
from tests.helpers.configs import write_tiny_config

STAGES = ("sft", "reward", "ppo")


def write_model(folder: Path, weights: bytes = b"w") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with models, records and functions that are all there."""
    monkeypatch.chdir(tmp_path)
    for name in ("export", "sft/model", "reward/model"):
        write_model(tmp_path / "runs" / "r" / name)
    write_model(tmp_path / "other", b"other")
    for name in ("chats", "pairs", "prompts"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"{name}": 1}}\n')
    for name in ("label", "short", "gold"):
        (tmp_path / f"{name}.py").write_text(f"def score(prompts, responses):\n    return '{name}'\n")
    path = tmp_path / "stages.yaml"
    path.write_text(
        """
run: {name: r, root: runs, seed: 7}
sft:
  learning_rate: 1.0e-3
  data: {chats: {paths: [chats.jsonl]}}
reward:
  learning_rate: 1.0e-3
  data: {pairs: {paths: ["pai*.jsonl"]}}
  sampled: {label: {file: label.py}}
ppo:
  learning_rate: 1.0e-3
  train_steps: 3
  prompts: {asked: {paths: [prompts.jsonl]}}
  rewards:
    model: {kind: model}
    short: {kind: function, file: short.py}
  gold: {file: gold.py}
"""
    )
    return path


def find(base: Path, name: str, *overrides: str) -> StageInputs:
    return find_inputs(load_stage_config([base], overrides).config, name)


@pytest.mark.parametrize("name", STAGES)
def test_the_hash_is_the_same_for_the_same_inputs(name: str, base: Path) -> None:
    assert find(base, name).digest == find(base, name).digest
    assert find(base, name).list_changes(find(base, name).to_dict()) == ""


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("key", ["log_every_steps=3", "save_every_steps=null", "evaluate_every_steps=5", "keep_last=9"])
def test_keys_that_change_what_is_written_are_free(name: str, key: str, base: Path) -> None:
    assert find(base, name, f"{name}.{key}").digest == find(base, name).digest


def test_other_stages_and_tracking_are_free(base: Path) -> None:
    overrides = ["tracking.mlflow=false", "reward.learning_rate=1", "ppo=null", "run.root=runs"]
    assert find(base, "sft", *overrides).digest == find(base, "sft").digest


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("run.seed=8", "seed"),
        ("{}.learning_rate=2e-3", "{}.learning_rate: "),
        ("{}.validation_fraction=0.1", "{}.validation_fraction: "),
        ("{}.global_batch_size=64", "{}.global_batch_size: "),
        ("{}.compute_dtype=bfloat16", "{}.compute_dtype: "),
    ],
)
def test_the_seed_and_the_section_count(name: str, override: str, part: str, base: Path) -> None:
    before, after = find(base, name), find(base, name, override.format(name))
    assert before.digest != after.digest
    assert after.list_changes(before.to_dict()).startswith(part.format(name))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("sft", "chats.jsonl"),
        ("reward", "pairs.jsonl"),
        ("reward", "chats.jsonl"),
        ("reward", "label.py"),
        ("ppo", "prompts.jsonl"),
        ("ppo", "short.py"),
        ("ppo", "gold.py"),
    ],
)
def test_the_content_of_records_and_functions_counts(name: str, file: str, base: Path) -> None:
    before = find(base, name)
    path = base.parent / file
    path.write_text(path.read_text() + " \n")
    after = find(base, name)
    assert before.digest != after.digest
    assert after.list_changes(before.to_dict()) == f"file {file}"


def test_another_file_of_a_glob_counts(base: Path) -> None:
    before = find(base, "reward")
    (base.parent / "pairs2.jsonl").write_text("{}\n")
    assert find(base, "reward").list_changes(before.to_dict()) == "file pairs2.jsonl"


@pytest.mark.parametrize(
    ("name", "folder", "part"),
    [
        ("sft", "export", "model model"),
        ("reward", "sft/model", "model model"),
        ("ppo", "sft/model", "model model"),
        ("ppo", "reward/model", "model reward model"),
    ],
)
def test_the_weights_of_parents_count(name: str, folder: str, part: str, base: Path) -> None:
    before = find(base, name)
    write_model(base.parent / "runs" / "r" / folder, b"trained again")
    after = find(base, name)
    assert before.digest != after.digest
    assert after.list_changes(before.to_dict()) == part


def test_models_may_be_named(base: Path) -> None:
    assert find(base, "sft", "sft.model=other").models == {"model": Path("other")}
    assert find(base, "ppo", "ppo.rewards={a: {kind: model, path: other}}").models == {
        "model": Path("runs/r/sft/model"),
        "reward model": Path("runs/r/reward/model"),
        "reward a": Path("other"),
    }


def test_the_order_of_sources_and_rewards_counts(base: Path) -> None:
    orders = [
        find(base, "ppo", f"ppo.rewards={{{terms}}}").digest
        for terms in ("a: {kind: model}, b: {kind: model}", "b: {kind: model}, a: {kind: model}")
    ]
    assert orders[0] != orders[1]


def test_where_a_guard_may_keep_the_best_model_the_evaluations_count(base: Path) -> None:
    guards = ["ppo.guards.max_kl=5", "ppo.evaluate_every_steps=3"]
    guarded = find(base, "ppo", *guards).digest
    assert guarded != find(base, "ppo", guards[0], "ppo.evaluate_every_steps=2").digest
    assert guarded == find(base, "ppo", *guards, "ppo.log_every_steps=2").digest


def test_how_the_prompts_of_sampled_pairs_are_read_counts_and_how_sft_learns_does_not(base: Path) -> None:
    before = find(base, "reward")
    after = find(base, "reward", "sft.data.chats.bad_rows=leave_out")
    assert after.list_changes(before.to_dict()) == "sft.data"
    assert find(base, "reward", "sft.learning_rate=1").digest == before.digest
    plain = find(base, "reward", "reward.sampled=null")
    assert find(base, "reward", "reward.sampled=null", "sft.data.chats.bad_rows=leave_out").digest == plain.digest


def test_prompts_of_ppo_are_those_of_sft_where_none_are_named(base: Path) -> None:
    base.write_text(base.read_text().replace("  prompts: {asked: {paths: [prompts.jsonl]}}\n", ""))
    filled = fill_in(load_stage_config([base]).config)
    assert filled.ppo is not None
    assert filled.sft is not None
    assert filled.ppo.prompts == filled.sft.data
    assert "file chats.jsonl" in find(base, "ppo").parts


def load_whole(folder: Path, **sections: dict[str, Any]) -> PosttrainingConfig:
    rates = {"sft": {"learning_rate": 1e-3}, "reward": {"learning_rate": 1e-3}}
    rates["ppo"] = {"learning_rate": 1e-3, "train_steps": 2}
    sections = {name: rates[name] | sections.get(name, {}) for name in rates}
    path = write_tiny_config(folder, instructions={"kinds": ["docstring", "explain"]}, **sections)
    return load_config([path]).config


def test_made_records_fill_in_what_no_stage_names(tmp_path: Path) -> None:
    filled = fill_in(load_whole(tmp_path))
    assert filled.sft is not None
    assert filled.reward is not None
    assert filled.ppo is not None
    folder = "data/tiny/posttraining"
    for data, kind in ((filled.sft.data, "instructions"), (filled.reward.data, "preferences")):
        assert {name: source.paths for name, source in data.items()} == {
            name: (f"{folder}/{kind}/{name}.jsonl",) for name in ("docstring", "explain")
        }
    assert filled.ppo.prompts == filled.sft.data
    named = load_whole(tmp_path, sft={"data": {"own": {"paths": ["own.jsonl"]}}}, ppo={"prompts": {}})
    filled = fill_in(named)
    assert filled.sft is not None
    assert list(filled.sft.data) == ["own"]


def test_kinds_of_which_nothing_was_made_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "tiny" / "posttraining" / "instructions"
    folder.mkdir(parents=True)
    (folder / "explain.jsonl").write_text("{}\n")
    filled = fill_in(load_whole(tmp_path))
    assert filled.sft is not None
    assert list(filled.sft.data) == ["explain"]


def test_made_records_are_inputs_of_pairs_drawn_from_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "runs" / "tiny" / "sft" / "model")
    file = tmp_path / "data" / "tiny" / "posttraining" / "instructions" / "docstring.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("{}\n")
    config = load_whole(tmp_path, reward={"sampled": {"label": {"file": "label.py"}}})
    before = find_inputs(config, "reward")
    file.write_text("{ }\n")
    assert find_inputs(config, "reward").list_changes(before.to_dict()).startswith("file data/tiny/posttraining/")


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_without_its_section_is_refused(name: str, base: Path) -> None:
    others = [f"{other}=null" for other in STAGES if other == name]
    others += ["reward.sampled=null"] if name == "sft" else []
    with pytest.raises(ConfigError) as caught:
        find(base, name, *others)
    assert str(caught.value) == (
        f"{name}: the configuration has no section `{name}`. Add it, see docs/posttraining.md."
    )


@pytest.mark.parametrize(
    ("name", "role", "folder", "command"),
    [
        ("sft", "model", "export", "llmtrain export RUN"),
        ("reward", "model", "sft/model", "llmtrain sft CONFIG"),
        ("ppo", "model", "sft/model", "llmtrain sft CONFIG"),
        ("ppo", "reward model", "reward/model", "llmtrain reward CONFIG"),
    ],
)
def test_a_stage_without_its_parent_says_how_to_make_it(
    name: str, role: str, folder: str, command: str, base: Path
) -> None:
    (base.parent / "runs" / "r" / folder / "config.json").unlink()
    with pytest.raises(ConfigError) as caught:
        find(base, name)
    assert str(caught.value) == (
        f"{name}: {role} runs/r/{folder}: no model there. Name a Hugging Face folder, or make it first: `{command}`, "
        "or all stages in order: `llmtrain run CONFIG`."
    )


def test_a_parent_without_weights_is_refused(base: Path) -> None:
    (base.parent / "other" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"^other: no model.safetensors."):
        find(base, "sft", "sft.model=other")


def test_a_stage_is_read_back_from_its_folder(base: Path, tmp_path: Path) -> None:
    assert read_stage(tmp_path) == {}
    inputs = find(base, "ppo")
    (tmp_path / STAGE_NAME).write_text(json.dumps(inputs.to_dict()))
    found = read_stage(tmp_path)
    assert found["inputs"] == inputs.digest
    assert found["stage"] == "ppo"
    assert inputs.list_changes(found) == ""
    assert "seed" in inputs.list_changes({})
