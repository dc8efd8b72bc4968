"""Epochs foretold against the samples that the order draws."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from llmtrain.config.root import Config
from llmtrain.data.epochs import compute_mixture_use
from llmtrain.data.loader import build_order
from llmtrain.data.rows import open_rows
from llmtrain.errors import DataError
from llmtrain.plan.build import build_plan
from llmtrain.shards.packing import build_pack_indexes, pack_shard
from llmtrain.shards.reader import ShardedTokens
from tests.helpers.configs import load_tiny_config
from tests.helpers.shards import make_documents, write_split

WEIGHTED = ["data.sources={web: {weight: 3.0}, code: {weight: 1.0}}", "training.train_steps=90"]
STAGED = [*WEIGHTED, "data.stages=[{from_fraction: 0.5, weights: {code: 1.0}}]"]
PACKED = [*WEIGHTED, "data.packing=best_fit"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ShardedTokens]:
    folder = tmp_path_factory.mktemp("shards")
    web = write_split(folder / "web", make_documents(40))
    code = write_split(folder / "code", make_documents(15, first=40), source="code")
    return {"web": web, "code": code}


def count_drawn(config: Config, shards: dict[str, ShardedTokens]) -> dict[str, int]:
    plan = build_plan(config, 1, 300)
    rows = {name: open_rows(opened, config.data, plan.sequence_length, pack_shard) for name, opened in shards.items()}
    order = build_order(config, plan, shards, rows)
    drawn = Counter(order.locate(0, plan.train_steps * plan.global_batch_size).sources.tolist())
    return {name: drawn[i] for i, name in enumerate(order.mixture.names)}


@pytest.mark.parametrize("overrides", [[], WEIGHTED, STAGED, PACKED], ids=["by size", "weighted", "staged", "packed"])
def test_sequences_are_those_that_the_order_draws(
    overrides: list[str], shards: dict[str, ShardedTokens], tmp_path: Path
) -> None:
    config = load_tiny_config(tmp_path, *overrides)
    plan = build_plan(config, 1, 300)
    if config.data.packing == "best_fit":
        for opened in shards.values():
            build_pack_indexes(opened, plan.sequence_length)
    use = compute_mixture_use(config, plan, shards)
    assert {source.name: source.sequences for source in use.sources} == count_drawn(config, shards)
    assert sum(source.drawn_tokens for source in use.sources) == plan.train_tokens
    assert use.is_packed
    for source in use.sources:
        assert source.tokens == shards[source.name].token_count
        windows = open_rows(shards[source.name], config.data, plan.sequence_length).num_windows
        assert source.epochs == source.sequences / windows


def test_stages_have_shares_of_their_own(shards: dict[str, ShardedTokens], tmp_path: Path) -> None:
    config = load_tiny_config(tmp_path, *STAGED)
    use = compute_mixture_use(config, build_plan(config, 1, 300), shards)
    assert use.first_steps == (0, 45)
    web, code = use.sources
    np.testing.assert_allclose((web.shares, code.shares), ((0.75, 0.0), (0.25, 1.0)), atol=1e-9)
    assert web.sequences == pytest.approx(45 * 8 * 0.75, abs=4)


def test_rows_that_are_not_packed_yet_count_as_full(shards: dict[str, ShardedTokens], tmp_path: Path) -> None:
    config = load_tiny_config(tmp_path, *PACKED, "batch.sequence_length=32")
    use = compute_mixture_use(config, build_plan(config, 1, 300), shards)
    assert not use.is_packed
    for source in use.sources:
        assert source.epochs == source.sequences / -(-source.tokens // 32)


def test_a_source_that_would_be_read_too_often_is_refused(shards: dict[str, ShardedTokens], tmp_path: Path) -> None:
    config = load_tiny_config(tmp_path, "data.sources={web: {max_epochs: 0.1}, code: {}}", "training.train_steps=90")
    with pytest.raises(DataError, match=r"data\.sources\.web: .* max_epochs is 0\.1"):
        compute_mixture_use(config, build_plan(config, 1, 300), shards)
