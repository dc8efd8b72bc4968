"""Weights that ranks share are compared; a difference is told by rank and tensor."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from llmtrain.errors import ParallelError
from llmtrain.parallel.engine import Engine
from llmtrain.parallel.layout import build_layout
from llmtrain.parallel.placement import get_placement
from llmtrain.parallel.start import prepare_deepspeed
from llmtrain.plan.build import build_plan
from llmtrain.training.replicas import check_replicas
from tests.helpers.configs import load_tiny_config
from tests.helpers.ranks import run_ranks

TENSOR, PIPELINE = "parallel.tensor_parallel_size=2", "parallel.pipeline_parallel_size=2"
TIED = "model.tie_word_embeddings=true"
# Layout, the tensor that rank 1 changes, and the whole line about it.
DRIFTS = [
    ([TENSOR], "final_norm.weight", "  final_norm.weight: rank 1 differs from rank 0"),
    ([TENSOR, "parallel.zero_stage=3"], "blocks.1.attention_norm.weight", "  blocks.1.attention_norm.weight: rank 1"),
    ([TENSOR], "blocks.0.feed_forward.down.weight", ""),
    ([PIPELINE, TIED], "embedding.token.weight", "  embedding.token.weight: rank 1 differs from rank 0"),
    (["parallel.zero_stage=0"], "blocks.0.attention.output.weight", "  blocks.0.attention.output.weight: rank 1"),
    ([TENSOR, "parallel.zero_stage=2"], None, ""),
]


def find_drift(folder: str, overrides: list[str], changed: str | None) -> str:
    """Let rank 1 change a bit of a weight; the message of the check."""
    config = load_tiny_config(Path(folder), *overrides)
    plan = build_plan(config, dist.get_world_size(), 300)
    engine = Engine(config, plan, build_layout(plan, dist.get_rank()), torch.device("cpu"), num_sources=1)
    for parameter in engine.module.parameters():
        if dist.get_rank() == 1 and get_placement(parameter).name == changed:
            is_zero_3 = hasattr(parameter, "ds_tensor")
            target = engine.deepspeed.optimizer.fp32_partitioned_groups_flat[0] if is_zero_3 else parameter
            if is_zero_3:
                optimizer = engine.deepspeed.optimizer
                group, offset, _ = optimizer.grad_position[optimizer.get_param_id(parameter)]
                target = optimizer.fp32_partitioned_groups_flat[group].data[offset:]
            target.data.view(-1)[:1].view(torch.int32).bitwise_xor_(1)
    try:
        check_replicas(engine, step=7)
    except ParallelError as error:
        return str(error)
    return ""


def find_drifts(folder: str, cases: list[tuple[list[str], str | None, str]]) -> list[str]:
    """Several layouts in one launch."""
    prepare_deepspeed(torch.device("cpu"))
    return [find_drift(folder, overrides, changed) for overrides, changed, _ in cases]


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    found: list[list[str]] = run_ranks(2, find_drifts, str(tmp_path_factory.mktemp("drift")), DRIFTS)
    return found


@pytest.mark.parametrize("index", range(len(DRIFTS)))
def test_one_bit_is_found_on_every_rank_if_the_weight_is_shared(messages: list[list[str]], index: int) -> None:
    _, _, line = DRIFTS[index]
    assert messages[0][index] == messages[1][index]
    if line:
        assert messages[0][index].startswith("step 7: weights that ranks share have drifted apart:\n" + line)
        assert messages[0][index].count("differs from") == 1
    else:
        assert messages[0][index] == ""
