from pathlib import Path
from typing import Any

import pytest

from llmtrain.parallel.deepspeed_config import build_deepspeed_config
from llmtrain.plan.build import build_plan
from tests.helpers.configs import load_tiny_config

BFLOAT16 = ["precision.parameter_dtype=bfloat16", "precision.compute_dtype=bfloat16"]


def build(folder: Path, *overrides: str, world_size: int = 2) -> dict[str, Any]:
    config = load_tiny_config(folder, *overrides)
    return build_deepspeed_config(config, build_plan(config, world_size, 300), 700_000_000)


def test_batch_arithmetic_is_the_plans(tmp_path: Path) -> None:
    made = build(tmp_path)
    keys = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    assert [made[key] for key in keys] == [8, 2, 2]


@pytest.mark.parametrize(("stage", "clipping"), [(0, 0.0), (1, 0.25), (3, 0.25)])
def test_clipping_is_always_given_as_deepspeed_would_clip_at_1(tmp_path: Path, stage: int, clipping: float) -> None:
    made = build(tmp_path, f"parallel.zero_stage={stage}", "optimizer.max_grad_norm=0.25")
    assert made["gradient_clipping"] == clipping


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {"stage": 1, "overlap_comm": True}),
        (["parallel.overlap_communication=false"], {"stage": 1, "overlap_comm": False}),
        (["parallel.pipeline_parallel_size=2"], {"stage": 1, "overlap_comm": False}),
        (
            ["parallel.zero_stage=3", "parallel.hierarchical_partition_size=2"],
            {
                "stage": 3,
                "overlap_comm": True,
                "zero_hpz_partition_size": 2,
                "stage3_param_persistence_threshold": 100_000,
            },
        ),
        (
            ["parallel.offload_optimizer=true"],
            {"stage": 1, "overlap_comm": True, "offload_optimizer": {"device": "cpu", "pin_memory": False}},
        ),
    ],
)
def test_section_zero_is_made_of_ours(tmp_path: Path, overrides: list[str], expected: dict[str, Any]) -> None:
    assert build(tmp_path, *overrides)["zero_optimization"] == {"reduce_bucket_size": 500_000_000, **expected}


def test_a_bucket_holds_no_more_than_there_is(tmp_path: Path) -> None:
    config = load_tiny_config(tmp_path)
    made = build_deepspeed_config(config, build_plan(config, 2, 300), 1234)
    assert made["zero_optimization"]["reduce_bucket_size"] == 1234


def test_bfloat16_weights_and_autocast_are_told_apart(tmp_path: Path) -> None:
    weights, autocast = build(tmp_path, *BFLOAT16), build(tmp_path, BFLOAT16[1])
    assert (weights["bf16"], weights.get("torch_autocast")) == ({"enabled": True}, None)
    assert autocast["bf16"] == {"enabled": False}
    assert autocast["torch_autocast"]["lower_precision_safe_modules"] == []


def test_no_compiled_optimizer_is_asked_for(tmp_path: Path) -> None:
    made = build(tmp_path, "parallel.offload_optimizer=true")
    assert made["zero_force_ds_cpu_optimizer"] is False
    assert "optimizer" not in made
