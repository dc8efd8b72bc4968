"""What cannot run is refused with every reason, the factors, and the nearest values that work."""

from pathlib import Path

import pytest

from llmtrain.config.cluster import load_cluster
from llmtrain.config.loader import load_config
from llmtrain.config.root import Config
from llmtrain.errors import ConfigError
from llmtrain.plan.build import build_plan
from llmtrain.plan.feasible import (
    choose_world_size,
    explain_no_layout,
    factorize,
    find_obstacles,
    list_world_sizes,
)
from llmtrain.plan.search import search_layouts

H100 = load_cluster("dgx_h100")
GPT3 = Path("configs/pretrain/gpt3_175b.yaml")


def load(*overrides: str) -> Config:
    return load_config([GPT3], list(overrides)).config


def test_numbers_are_shown_with_their_factors() -> None:
    assert [factorize(n) for n in (1, 7, 96, 1536)] == ["1", "7", "96 = 2^5 x 3", "1,536 = 2^9 x 3"]


def test_a_run_that_works_has_no_obstacle_and_a_plan() -> None:
    config = load()
    for world_size in list_world_sizes(config, H100.num_devices):
        assert find_obstacles(config, world_size, H100) == []
        build_plan(config, world_size, 50_257)


def test_more_ranks_than_devices_are_refused_with_the_nearest_that_work() -> None:
    (found,) = find_obstacles(load(), 6144, H100)
    assert found == (
        "world: 6,144 ranks, DGX H100 has 4,096 devices = 512 machines x 8. "
        "Nearest numbers of ranks that work: 2,048, 3,072, 4,096."
    )


def test_every_obstacle_is_named_at_once() -> None:
    found = find_obstacles(load("parallel.pipeline_parallel_size=100"), 5000, H100)
    assert len(found) == 3
    assert "5,000 ranks, DGX H100 has 4,096 devices" in found[0]
    assert "world: 5,000 = 2^3 x 5^4 ranks are no multiple of parallel.tensor_parallel_size 8 x" in found[1]
    assert (
        "pipeline_parallel_size 100: 800 = 2^5 x 5^2. Nearest numbers of ranks that work: 1,600, 2,400, 3,200."
        in (found[1])
    )
    assert "the model has model.num_layers: 96 = 2^5 x 3. Choose at most 96" in found[2]


def test_a_batch_that_does_not_divide_is_refused_with_batches_and_ranks_that_do() -> None:
    (found,) = find_obstacles(load(), 128 * 5, H100)
    assert found == (
        "batch.global_batch_size: 1,536 = 2^9 x 3 is no multiple of batch.micro_batch_size 1 x 5 data-parallel ranks. "
        "Choose 1,535 or 1,540 sequences. Nearest numbers of ranks that work: 384, 512, 768."
    )


@pytest.mark.parametrize("world_size", [64, 100, 127, 640])
def test_obstacles_are_found_wherever_a_plan_is_refused(world_size: int) -> None:
    config = load()
    with pytest.raises(ConfigError):
        build_plan(config, world_size, 50_257)
    assert find_obstacles(config, world_size, H100)


def test_the_default_is_the_fewest_whole_machines() -> None:
    assert choose_world_size(load(), H100) == 128
    assert choose_world_size(load_config([Path("configs/pretrain/gpt3_125m.yaml")]).config, H100) == 8
    assert choose_world_size(load("parallel.pipeline_parallel_size=1000"), H100) == 8000


def test_a_model_too_large_for_every_layout_says_what_the_smallest_needs() -> None:
    config = load()
    result = search_layouts(config, 16, H100, 50_257)
    assert result.proposals == ()
    message = explain_no_layout(config, 16, H100, result)
    assert "layouts on 16 ranks fits 79.1 GiB; the smallest needs" in message
    assert "Start more ranks" in message


def test_a_number_of_ranks_that_shares_nothing_names_all_factors() -> None:
    config = load()
    result = search_layouts(config, 4093, H100, 50_257)
    message = explain_no_layout(config, 4093, H100, result)
    assert "no layout of 4,093 ranks divides batch.global_batch_size 1,536 = 2^9 x 3" in message
    assert "model.num_layers 96 = 2^5 x 3" in message
