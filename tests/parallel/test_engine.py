"""What a step does when something is wrong; tests/training/test_parity.py shows that it computes the right thing."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.data.loader import Batch
from llmtrain.errors import DivergenceError
from llmtrain.parallel.engine import Engine
from llmtrain.parallel.layout import build_layout
from llmtrain.parallel.start import prepare_deepspeed
from llmtrain.plan.build import Plan, build_plan
from tests.helpers.configs import load_tiny_config
from tests.helpers.ranks import run_ranks


def global_batch(step: int, sequences: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of a whole step with structure to learn, and labels of which some are left out."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, 300, (sequences, length + 1), generator=generator)
    ids[:, 1::2] = (ids[:, 0:-1:2] * 3 + 1) % 300
    labels = ids[:, 1:].clone()
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = IGNORE_INDEX
    labels[0] = IGNORE_INDEX
    return ids[:, :-1].contiguous(), labels


def build_engine(folder: str, overrides: list[str]) -> tuple[Engine, Plan]:
    """The engine of a tiny model on this rank."""
    config = load_tiny_config(Path(folder), *overrides)
    plan = build_plan(config, dist.get_world_size(), 300)
    return Engine(config, plan, build_layout(plan, dist.get_rank()), torch.device("cpu"), num_sources=2), plan


def make_batches(plan: Plan, rank: int, step: int) -> list[Batch]:
    """The micro-batches of one rank."""
    ids, labels = global_batch(step, plan.global_batch_size, plan.sequence_length)
    batches = []
    for micro in range(plan.gradient_accumulation_steps):
        first = (micro * plan.data_parallel_size + rank) * plan.micro_batch_size
        rows = slice(first, first + plan.micro_batch_size)
        batches.append(Batch(ids[rows], labels[rows], torch.arange(plan.global_batch_size)[rows] % 2))
    return batches


def poison_step(folder: str) -> tuple[str, bool]:
    """A step whose loss is not finite: the message, and whether the weights stayed as they were."""
    prepare_deepspeed(torch.device("cpu"))
    engine, plan = build_engine(folder, [])
    if dist.get_rank() == 1:
        with torch.no_grad():
            engine.module.get_parameter("final_norm.weight").fill_(float("nan"))
    before = [parameter.detach().clone() for parameter in engine.module.parameters()]
    try:
        engine.train_step(make_batches(plan, dist.get_rank(), 0), 1e-2, stop_requested=False)
    except DivergenceError as error:
        pairs = zip(before, engine.module.parameters(), strict=True)
        return str(error), all(torch.equal(old.nan_to_num(), new.nan_to_num()) for old, new in pairs)
    return "", False


def test_a_loss_that_is_not_finite_stops_every_rank_before_the_update(tmp_path: Path) -> None:
    for message, unchanged in run_ranks(2, poison_step, str(tmp_path)):
        assert "step 1: the loss is nan. The weights were not updated" in message
        assert unchanged


def ask_one_rank_to_stop(folder: str) -> bool:
    """Whether this rank learns that rank 1 was asked to stop."""
    prepare_deepspeed(torch.device("cpu"))
    engine, plan = build_engine(folder, [])
    batches = make_batches(plan, dist.get_rank(), 0)
    return engine.train_step(batches, 1e-2, stop_requested=dist.get_rank() == 1).stop_requested


def test_a_stop_request_of_one_rank_reaches_all(tmp_path: Path) -> None:
    assert run_ranks(2, ask_one_rank_to_stop, str(tmp_path)) == [True, True]


def compare_compiled_blocks(folder: str, overrides: list[str]) -> tuple[int, list[float], list[float]]:
    """Blocks compiled on this rank, and losses of three steps with and without compilation."""
    prepare_deepspeed(torch.device("cpu"))
    compiled, losses = 0, []
    compile_module = nn.Module.compile

    def compile_without_inductor(module: nn.Module) -> None:
        nonlocal compiled
        compiled += 1
        compile_module(module, backend="aot_eager")

    nn.Module.compile = compile_without_inductor  # type: ignore[method-assign, assignment]
    for compiles in ("true", "false"):
        engine, plan = build_engine(folder, [*overrides, f"training.compile={compiles}"])
        data_parallel_rank = engine.layout.data_parallel_rank
        batches = [make_batches(plan, data_parallel_rank, step) for step in range(3)]
        losses.append([engine.train_step(batch, 1e-2, stop_requested=False).losses.mean for batch in batches])
    return compiled, losses[0], losses[1]


@pytest.mark.parametrize(
    ("overrides", "blocks"),
    [
        ([], [2, 2]),
        (["parallel.tensor_parallel_size=2"], [2, 2]),
        (["parallel.pipeline_parallel_size=2", "model.tie_word_embeddings=true"], [1, 1]),
    ],
)
def test_each_block_is_compiled_and_losses_stay(overrides: list[str], blocks: list[int], tmp_path: Path) -> None:
    results = run_ranks(2, compare_compiled_blocks, str(tmp_path), overrides)
    assert [compiled for compiled, _, _ in results] == blocks
    for _, with_compilation, without in results:
        assert with_compilation == pytest.approx(without, rel=1e-6)
