from pathlib import Path

import pytest

from llmtrain.errors import ConfigError
from llmtrain.plan.build import build_plan
from tests.helpers.configs import load_tiny_config


def test_batch_arithmetic_is_derived(tmp_path: Path) -> None:
    plan = build_plan(load_tiny_config(tmp_path), world_size=2, tokenizer_vocab_size=300)
    assert (plan.data_parallel_size, plan.gradient_accumulation_steps) == (2, 2)
    assert plan.tokens_per_step == 8 * 16
    assert plan.shape.vocab_size == 300
    assert plan.shape.padded_vocab_size == 320


def test_a_horizon_in_tokens_is_rounded_up_to_steps(tmp_path: Path) -> None:
    config = load_tiny_config(tmp_path, "training.train_steps=null", "training.train_tokens=1025")
    assert build_plan(config, 1, 300).train_steps == 9


def test_a_world_that_does_not_divide_the_batch_is_refused_with_choices(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Start 1, 2 or 4 data-parallel ranks, or choose a multiple of 6"):
        build_plan(load_tiny_config(tmp_path), world_size=3, tokenizer_vocab_size=300)


def test_groups_of_hierarchical_partitioning_must_divide_the_data_parallel_ranks(tmp_path: Path) -> None:
    config = load_tiny_config(tmp_path, "parallel.zero_stage=3", "parallel.hierarchical_partition_size=3")
    with pytest.raises(ConfigError, match=r"= 3 does not divide 4 data-parallel ranks\. Choose 1, 2 or 4"):
        build_plan(config, 4, 300)


def test_a_vocabulary_other_than_the_tokenizers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.vocab_size = 400 differs from the tokenizer"):
        build_plan(load_tiny_config(tmp_path, "model.vocab_size=400"), 1, 300)


def test_a_schedule_longer_than_a_horizon_in_tokens_is_refused(tmp_path: Path) -> None:
    config = load_tiny_config(
        tmp_path, "training.train_steps=null", "training.train_tokens=128", "schedule.warmup_steps=2"
    )
    with pytest.raises(ConfigError, match="exceed the 1 steps"):
        build_plan(config, 1, 300)


def test_the_plan_describes_itself(tmp_path: Path) -> None:
    rows = dict(build_plan(load_tiny_config(tmp_path), 2, 300).describe())
    assert rows["ranks"] == "2 = data 2 x tensor 1 x pipeline 1, ZeRO stage 1"
    assert rows["training"] == "10 steps, 1,280 tokens"
