"""Our sections as arguments of the trainers."""

import os
from pathlib import Path

import pytest
import torch

from llmtrain.config.ppo import PpoConfig
from llmtrain.config.sft import SftConfig
from llmtrain.errors import ConfigError
from llmtrain.posttraining.batch_sizes import count_accumulation
from llmtrain.posttraining.trainer_arguments import announce_world, build_arguments, build_deepspeed, find_max_length
from llmtrain.process.world import World

SECTION = SftConfig(learning_rate=1e-3, micro_batch_size=4, global_batch_size=32)


@pytest.mark.parametrize(("world_size", "steps"), [(1, 8), (2, 4), (8, 1)])
def test_micro_batches_of_all_ranks_are_the_global_batch(world_size: int, steps: int) -> None:
    assert count_accumulation("sft", SECTION, world_size) == steps


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        count_accumulation("sft", SECTION, 3)
    assert str(caught.value) == (
        "sft: sft.micro_batch_size = 4 x 3 ranks does not divide sft.global_batch_size = 32. Choose a multiple of 12."
    )


def test_every_number_of_the_section_reaches_the_trainer(tmp_path: Path) -> None:
    from trl import SFTConfig as Arguments

    section = SECTION.model_copy(
        update={
            "betas": (0.8, 0.95),
            "epsilon": 1e-7,
            "weight_decay": 0.1,
            "max_grad_norm": 0.5,
            "schedule": "linear",
            "warmup_steps": 7,
            "save_every_steps": None,
        }
    )
    found = Arguments(**build_arguments("sft", section, tmp_path, 11, World()))
    names = ("learning_rate", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm")
    assert [getattr(found, name) for name in names] == [1e-3, 0.8, 0.95, 1e-7, 0.1, 0.5]
    assert (found.per_device_train_batch_size, found.gradient_accumulation_steps) == (4, 8)
    assert (found.lr_scheduler_type, found.warmup_steps, found.seed, found.data_seed) == ("linear", 7, 11, 11)
    assert (found.save_strategy, found.eval_strategy, found.report_to) == ("no", "no", [])
    assert not found.bf16
    assert not found.gradient_checkpointing
    assert found.use_cpu == (not torch.cuda.is_available())


def test_the_schedules_are_those_of_transformers(tmp_path: Path) -> None:
    for ours, theirs in (("constant", "constant_with_warmup"), ("linear", "linear"), ("cosine", "cosine")):
        section = SECTION.model_copy(update={"schedule": ours})
        assert build_arguments("sft", section, tmp_path, 0, World())["lr_scheduler_type"] == theirs


def test_zero_is_deepspeeds_and_its_third_stage_saves_whole_models() -> None:
    assert build_deepspeed("sft", SECTION, 2) is None
    for stage in (1, 2, 3):
        found = build_deepspeed("sft", SECTION.model_copy(update={"zero_stage": stage, "max_grad_norm": 0.5}), 2)
        assert found is not None
        assert found["zero_optimization"]["stage"] == stage
        assert ("stage3_gather_16bit_weights_on_model_save" in found["zero_optimization"]) == (stage == 3)
        assert (found["train_micro_batch_size_per_gpu"], found["gradient_accumulation_steps"]) == (4, 4)
        assert found["gradient_clipping"] == 0.5
        assert "torch_autocast" not in found


def test_bfloat16_casts_and_leaves_weights_in_float32_under_zero_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name in (*ranks, "ACCELERATE_MIXED_PRECISION", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "0")
    plain = SECTION.model_copy(update={"compute_dtype": "bfloat16"})
    announce_world(World(), plain)
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert build_arguments("sft", plain, tmp_path, 0, World())["bf16"]
    zero = plain.model_copy(update={"zero_stage": 2})
    announce_world(World(), zero)
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "no"
    assert not build_arguments("sft", zero, tmp_path, 0, World())["bf16"]
    found = build_deepspeed("sft", zero, 2)
    assert found is not None
    assert found["torch_autocast"] == {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    assert "bf16" not in found


def test_examples_longer_than_the_model_reads_are_refused(models: dict[str, object], family: str) -> None:
    model = models[family]
    assert find_max_length("sft", None, model) == 96
    assert find_max_length("sft", 50, model) == 50
    with pytest.raises(ConfigError) as caught:
        find_max_length("reward", 97, model)
    assert str(caught.value) == "reward.max_length = 97: the model reads 96 tokens. Choose at most 96."


def test_mini_batches_count_too_and_every_factor_is_named() -> None:
    section = PpoConfig(learning_rate=1e-4, train_steps=1, micro_batch_size=1, global_batch_size=12, mini_batches=2)
    assert count_accumulation("ppo", section, 2) == 3
    with pytest.raises(ConfigError) as caught:
        count_accumulation("ppo", section, 4)
    assert str(caught.value) == (
        "ppo: ppo.micro_batch_size = 1 x 4 ranks x ppo.mini_batches = 2 does not divide ppo.global_batch_size = 12. "
        "Choose a multiple of 8."
    )


def test_a_model_that_names_no_limit_needs_one_of_the_configuration() -> None:
    from transformers import BloomConfig, BloomForCausalLM

    model = BloomForCausalLM(BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2))
    assert find_max_length("sft", 50, model) == 50
    with pytest.raises(ConfigError) as caught:
        find_max_length("sft", None, model)
    assert str(caught.value) == (
        "sft.max_length: the configuration of BloomForCausalLM does not say how many tokens it reads "
        "(max_position_embeddings). Set sft.max_length."
    )


def test_variables_of_the_shell_do_not_change_number_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_DEEPSPEED": "true"}.items():
        monkeypatch.setenv(name, value)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "0")
    announce_world(World(), SftConfig(learning_rate=1e-4))
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "no"
    assert "ACCELERATE_USE_DEEPSPEED" not in os.environ
