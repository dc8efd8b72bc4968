"""What reading takes, against the measured rates that it is made of."""

import json
from pathlib import Path

import pytest

from llmtrain.config.loader import load_config
from llmtrain.plan import reading
from llmtrain.plan.build import build_plan
from llmtrain.plan.reading import Reading, compute_reading

GPT3_RANKS = 1536


def compute(*overrides: str, step_seconds: float = 6.0) -> Reading:
    config = load_config([Path("configs/pretrain/gpt3_175b.yaml")], list(overrides)).config
    return compute_reading(config, build_plan(config, GPT3_RANKS, config.model.vocab_size or 0), step_seconds)


def test_every_rank_reads_the_tokens_of_its_replica() -> None:
    assert compute().bytes_per_second == pytest.approx(1536 * 2048 * 2 / 6.0 * 128)  # 128 ranks of each replica
    assert compute("model.vocab_size=100000").bytes_per_second == 2 * compute().bytes_per_second


def test_the_loader_is_hidden_unless_it_takes_longer_than_the_step() -> None:
    found = compute()
    assert found.seconds == pytest.approx(1536 * 2048 / 12 / 38.7e6 + 1536 * 3e-3 / 512)
    assert found.is_hidden
    assert not compute(step_seconds=found.seconds / 2).is_hidden
    assert compute("data.packing=best_fit").seconds > found.seconds


def test_the_loaders_rates_are_the_measured_ones() -> None:
    medians = json.loads(Path("docs/results/loader_cpu.json").read_text())["load"]["batch_16"]["median"]
    for packing, rate in reading._LOADER_TOKENS_PER_SECOND.items():
        assert rate == pytest.approx(medians[packing], rel=0.005)
