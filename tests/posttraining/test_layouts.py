"""Every stage on two ranks, plainly and under each ZeRO stage, computes what one process computes.

    LLMTRAIN_LAYOUTS=docs/results/posttraining_layouts.json python -m pytest tests/posttraining/test_layouts.py

runs all sixteen cases under torchrun in place of five, and writes the largest differences of each.
"""

import itertools
import json
import os
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.posttraining.stage_files import LAUNCHERS, read_numbers, run_stage, write_stage_config

# Rounding of float32 sums in another order, over a few steps.
RELATIVE, ABSOLUTE = 2e-4, 2e-5
STAGES = {"sft": "sft", "reward": "reward", "ppo": "ppo", "rloo": "ppo"}
ALL = list(itertools.product(STAGES, range(4), ["torchrun"]))
FEW = [
    ("sft", 3, "torchrun"),
    ("reward", 2, "nproc"),
    ("ppo", 3, "nproc"),
    ("ppo", 0, "torchrun"),
    ("rloo", 2, "nproc"),
]
RESULTS = os.environ.get("LLMTRAIN_LAYOUTS")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, model_folders: dict[str, Path], conversations_file: Path) -> Path:
    """All stages as one process, saved at every second step."""
    folder = tmp_path_factory.mktemp("stages")
    write_stage_config(folder, model_folders["llama"], conversations_file)
    for stage in ("sft", "reward", "ppo"):
        run_stage(folder, stage)
    run_stage(folder, "ppo", "run.name=rloo", "ppo.algorithm=rloo", *_models(stages=("ppo",)))
    return folder


def _models(stages: tuple[str, ...]) -> list[str]:
    """Overrides that make a stage start from the models of the run `one`."""
    overrides = [f"{stage}.model=runs/one/sft/model" for stage in stages if stage != "sft"]
    if "ppo" in stages:
        overrides.append("ppo.rewards={model: {kind: model, path: runs/one/reward/model}}")
    return overrides


@pytest.mark.parametrize(("name", "zero_stage", "launcher"), ALL if RESULTS else FEW)
def test_two_ranks_compute_what_one_process_computes(alone: Path, name: str, zero_stage: int, launcher: str) -> None:
    run, stage = f"{name}-{zero_stage}", STAGES[name]
    overrides = [f"run.name={run}", f"{stage}.zero_stage={zero_stage}", *_models((stage,))]
    if name == "rloo":
        overrides.append("ppo.algorithm=rloo")
    LAUNCHERS[launcher](alone, stage, *overrides)
    base = alone / "runs" / ("rloo" if name == "rloo" else "one") / stage
    expected, found = read_numbers(base), read_numbers(alone / "runs" / run / stage)
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    compared = [(metric, value, other) for (_, metric, value), (*_, other) in zip(expected, found, strict=True)]
    for metric, value, other in compared:
        assert other == pytest.approx(value, rel=RELATIVE, abs=ABSOLUTE), metric
    ours = load_file(base / "model" / "model.safetensors")
    theirs = load_file(alone / "runs" / run / stage / "model" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    weights = max(float((ours[tensor] - theirs[tensor]).abs().max()) for tensor in ours)
    assert weights < 2e-4
    if RESULTS:
        losses = [abs(value - other) / abs(value) for metric, value, other in compared if "loss" in metric and value]
        _write(Path(RESULTS), run, {"loss_relative": max(losses), "weight_absolute": weights, "numbers": len(compared)})


def _write(path: Path, case: str, row: dict[str, float]) -> None:
    rows = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(rows | {case: row}, indent=1) + "\n")


def test_models_load_with_stock_classes(alone: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    runs = alone / "runs" / "one"
    policy = AutoModelForCausalLM.from_pretrained(runs / "ppo" / "model")
    assert type(policy).__name__ == "LlamaForCausalLM"
    for folder in (runs / "reward" / "model", runs / "ppo" / "value_model"):
        assert AutoModelForSequenceClassification.from_pretrained(folder).config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(runs / "ppo" / "model")
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "What is 1?"}], add_generation_prompt=True)
    assert rendered["input_ids"][0] == tokenizer.bos_token_id
