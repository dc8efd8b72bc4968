"""bfloat16: products are cast and weights stay float32, on one process and under ZeRO-2 on two ranks."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.posttraining.stage_files import read_numbers, run_stage, write_stage_config

# bfloat16 has 8 bits: products are off by up to 4e-3 of their size, most of which cancels in a mean over tokens.
LOSS_TOLERANCE = 2e-3
# A rollout and its update lay out the same tokens in batches of other widths; sums are rounded otherwise.
RATIO_TOLERANCE = 1e-3
# Nats of a response under the policy against the reference, which has the same weights at the first step.
FIRST_KL = 1e-3
# The first test makes seven runs.
pytestmark = pytest.mark.timeout(900)
WHOLE = ["ppo.epochs=1", "ppo.mini_batches=1", "ppo.train_steps=2"]  # one update of a rollout, on all of it


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model_folders: dict[str, Path], conversations_file: Path) -> Path:
    """Runs `alone` and `zero` of all stages in bfloat16, and `float32` of sft."""
    folder = tmp_path_factory.mktemp("bfloat16")
    write_stage_config(folder, model_folders["llama"], conversations_file)
    run_stage(folder, "sft", "run.name=float32")
    for name, options in (("alone", []), ("zero", ["--nproc", "2"])):
        for stage, more in (("sft", []), ("reward", ["reward.train_epochs=3"]), ("ppo", WHOLE)):
            overrides = [f"run.name={name}", f"{stage}.compute_dtype=bfloat16", *more]
            run_stage(folder, stage, *options, *overrides, f"{stage}.zero_stage={2 if options else 0}")
    return folder / "runs"


def read_values(folder: Path, metric: str) -> list[float]:
    return [value for _, name, value in read_numbers(folder) if name == metric]


@pytest.mark.parametrize("run", ["alone", "zero"])
def test_the_losses_fall_and_all_numbers_are_finite(runs: Path, run: str) -> None:
    for stage in ("sft", "reward", "ppo"):
        assert all(math.isfinite(value) for *_, value in read_numbers(runs / run / stage))
    losses = read_values(runs / run / "sft", "validation/loss")
    assert losses[-1] < losses[0]
    losses = read_values(runs / run / "reward", "train/loss")
    assert sum(losses[-3:]) < sum(losses[:3])


@pytest.mark.parametrize("run", ["alone", "zero"])
def test_products_are_cast_and_the_loss_is_that_of_float32_within_their_rounding(runs: Path, run: str) -> None:
    expected, found = (read_values(runs / name / "sft", "train/loss") for name in ("float32", run))
    assert found != expected
    assert found == pytest.approx(expected, rel=LOSS_TOLERANCE)


def test_two_ranks_under_zero_compute_what_one_process_computes(runs: Path) -> None:
    for stage in ("sft", "reward"):
        expected, found = (read_values(runs / name / stage, "train/loss") for name in ("alone", "zero"))
        assert found == pytest.approx(expected, rel=LOSS_TOLERANCE)


@pytest.mark.parametrize("run", ["alone", "zero"])
def test_weights_are_saved_as_float32_with_all_their_bits(runs: Path, run: str) -> None:
    for model in ("sft/model", "reward/model", "ppo/model", "ppo/value_model"):
        weights = load_file(runs / run / model / "model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {torch.float32}
        assert any((weight != weight.bfloat16()).any() for weight in weights.values())
        assert json.loads((runs / run / model / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("run", ["alone", "zero"])
def test_a_rollout_is_told_by_the_update_as_likely_as_it_was_and_as_the_reference_finds_it(
    runs: Path, run: str
) -> None:
    folder = runs / run / "ppo"
    assert read_values(folder, "ppo/ratio") == pytest.approx([1, 1], abs=RATIO_TOLERANCE)
    assert abs(read_values(folder, "ppo/kl")[0]) < FIRST_KL
    assert abs(read_values(folder, "validation/kl")[0]) < FIRST_KL
