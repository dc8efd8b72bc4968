"""What must hold of reinforcement learning, whatever the model: run in this process on tiny models."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from llmtrain.config.loader import load_stage_config
from llmtrain.process.signals import STOP_SIGNALS
from llmtrain.process.world import World
from llmtrain.stages.posttraining import run_stage
from tests.posttraining.stage_files import write_stage_config

CONSTANT = "def score(prompts, responses):\n    return [{value}] * len(responses)\n"


@pytest.fixture
def project(
    tmp_path: Path, model_folders: dict[str, Path], conversations_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder with a configuration, as current directory; signals are given back afterwards."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    environment = dict(os.environ)
    write_stage_config(tmp_path, model_folders["llama"], conversations_file)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.environ.clear()
    os.environ.update(environment)


def run_ppo(project: Path, model: Path, *overrides: str) -> tuple[list[dict[str, Any]], Path]:
    """Run stage ppo alone with a function as reward; its lines of metrics and its folder."""
    rewards = "ppo.rewards={judge: {kind: function, file: judge.py}}"
    config = load_stage_config([project / "stages.yaml"], [f"ppo.model={model}", rewards, *overrides]).config
    assert run_stage(config, "ppo", World()) == 0
    folder = config.run.folder / "ppo"
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()], folder


def find_first(lines: list[dict[str, Any]], name: str) -> float:
    value: float = next(line["metrics"][name] for line in lines if name in line["metrics"])
    return value


def test_the_first_rollout_is_that_of_the_reference(project: Path, model_folders: dict[str, Path]) -> None:
    lines, _ = run_ppo(project, model_folders["llama"], "ppo.epochs=1", "ppo.mini_batches=1", "ppo.train_steps=1")
    assert abs(find_first(lines, "ppo/kl")) < 1e-5
    assert find_first(lines, "ppo/ratio") == pytest.approx(1, abs=1e-5)
    assert find_first(lines, "ppo/approximate_kl") == pytest.approx(0, abs=1e-9)
    assert find_first(lines, "validation/kl") == pytest.approx(0, abs=1e-5)


def test_answers_that_are_all_worth_the_same_teach_nothing(project: Path, model_folders: dict[str, Path]) -> None:
    (project / "judge.py").write_text(CONSTANT.format(value=3.5))
    overrides = ["ppo.algorithm=rloo", "ppo.kl.coefficient=0"]
    _, folder = run_ppo(project, model_folders["llama"], *overrides)
    before, after = (load_file(path / "model.safetensors") for path in (model_folders["llama"], folder / "model"))
    assert all((before[name] - after[name]).abs().max() == 0 for name in after)


def test_a_price_of_kl_keeps_the_policy_nearer(project: Path, model_folders: dict[str, Path]) -> None:
    found = []
    for price in (0, 5):
        overrides = [f"run.name=price-{price}", f"ppo.kl.coefficient={price}", "ppo.train_steps=8"]
        lines, _ = run_ppo(project, model_folders["llama"], *overrides)
        # Of rollouts: held out are too few prompts to tell the two apart from one answer each.
        values = [line["metrics"]["ppo/kl"] for line in lines if "ppo/kl" in line["metrics"]][4:]
        found.append(sum(values) / len(values))
    assert found[1] < found[0] / 2, found


def test_critic_warm_up_leaves_the_policy_alone(project: Path, model_folders: dict[str, Path]) -> None:
    overrides = ["ppo.critic_warmup_steps=4", "ppo.train_steps=5", "ppo.save_every_steps=4"]
    lines, folder = run_ppo(project, model_folders["llama"], *overrides)
    before = load_file(model_folders["llama"] / "model.safetensors")
    after = load_file(folder / "checkpoints" / "checkpoint-4" / "model.safetensors")
    assert all((weight - after[f"policy.{name}"]).abs().max() == 0 for name, weight in before.items())
    losses = [line["metrics"]["ppo/value_loss"] for line in lines if "ppo/value_loss" in line["metrics"]]
    assert losses[-1] < losses[0]


def test_a_limit_ends_the_run_and_the_best_model_is_kept(project: Path, model_folders: dict[str, Path]) -> None:
    overrides = ["ppo.guards.max_kl=0.0001", "ppo.learning_rate=0.01", "ppo.train_steps=6"]
    overrides.append("ppo.evaluate_every_steps=1")
    _, folder = run_ppo(project, model_folders["llama"], *overrides)
    summary = json.loads((folder / "summary.json").read_text())
    assert "is above ppo.guards.max_kl = 0.0001" in summary["stopped_by"]
    assert summary["steps"] < 6
    assert summary["kept_step"] == summary["after"]["step"] == 0
    before, after = (load_file(path / "model.safetensors") for path in (model_folders["llama"], folder / "model"))
    assert all((before[name] - after[name]).abs().max() == 0 for name in after)  # the best was the first
    assert not (folder / "best").exists()


def test_every_term_of_the_reward_is_logged_and_summed(project: Path, model_folders: dict[str, Path]) -> None:
    (project / "length.py").write_text("def brevity(prompts, responses):\n    return [-len(r) for r in responses]\n")
    short = "{kind: function, file: length.py, function: brevity, weight: 0.5}"
    terms = f"{{judge: {{kind: function, file: judge.py}}, short: {short}}}"
    lines, _ = run_ppo(project, model_folders["gpt2"], f"ppo.rewards={terms}", "ppo.train_steps=1")
    parts = find_first(lines, "ppo/score_judge") + 0.5 * find_first(lines, "ppo/score_short")
    assert find_first(lines, "ppo/score") == pytest.approx(parts)
