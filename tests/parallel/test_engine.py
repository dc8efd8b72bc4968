"""Every number of ranks and every ZeRO stage compute what one process computes."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.data.loader import Batch
from llmtrain.errors import DivergenceError
from llmtrain.parallel.engine import Engine
from llmtrain.parallel.layout import build_layout
from llmtrain.parallel.start import prepare_deepspeed
from llmtrain.plan.build import Plan, build_plan
from tests.helpers.configs import load_tiny_config
from tests.helpers.ranks import run_ranks

STEPS = 6
# Sums of float32 in another order; measured differences stay below 1e-6.
RELATIVE_TOLERANCE = 1e-5
# One bfloat16 has 8 bits of mantissa; after a few steps losses of the two formats differ by some of their ulps.
BFLOAT16_TOLERANCE = 2e-2

STAGES = [f"parallel.zero_stage={stage}" for stage in range(4)]


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


def train_case(folder: str, overrides: list[str]) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of a few steps on this world."""
    engine, plan = build_engine(folder, overrides)
    results = [
        engine.train_step(make_batches(plan, engine.layout.data_parallel_rank, step), 1e-2, stop_requested=False)
        for step in range(STEPS)
    ]
    return [result.losses.mean for result in results], [result.grad_norm for result in results]


def train_cases(folder: str, cases: list[list[str]]) -> list[tuple[list[float], list[float]]]:
    """Several cases in one launch, as a launch costs seconds."""
    prepare_deepspeed(torch.device("cpu"))
    return [train_case(folder, case) for case in cases]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list[float], list[float]]]:
    folder = str(tmp_path_factory.mktemp("one"))
    cases = [[STAGES[0]], [STAGES[0], "model.tie_word_embeddings=true"]]
    results: list[tuple[list[float], list[float]]] = run_ranks(1, train_cases, folder, cases)[0]
    return results


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_zero_stage_computes_what_one_process_computes(
    world_size: int, one_process: list[tuple[list[float], list[float]]], tmp_path: Path
) -> None:
    micro = ["batch.micro_batch_size=1"]
    cases = [[stage] for stage in STAGES] + [[stage, *micro] for stage in STAGES]
    cases += [[stage, "model.tie_word_embeddings=true"] for stage in STAGES]
    results = run_ranks(world_size, train_cases, str(tmp_path), cases, timeout=250)
    for rank_results in results:
        for case, (losses, norms) in zip(cases, rank_results, strict=True):
            expected = one_process["model.tie_word_embeddings=true" in case]
            assert losses == pytest.approx(expected[0], rel=RELATIVE_TOLERANCE), case
            assert norms == pytest.approx(expected[1], rel=RELATIVE_TOLERANCE), case


def test_training_learns(one_process: list[tuple[list[float], list[float]]]) -> None:
    losses, _ = one_process[0]
    assert losses[-1] < losses[0] - 0.05


def test_bfloat16_follows_float32(one_process: list[tuple[list[float], list[float]]], tmp_path: Path) -> None:
    compute = "precision.compute_dtype=bfloat16"
    cases = [[stage, compute] for stage in STAGES]
    cases += [[stage, compute, "precision.parameter_dtype=bfloat16"] for stage in STAGES[1:]]
    for case, (losses, _) in zip(cases, run_ranks(2, train_cases, str(tmp_path), cases, timeout=250)[0], strict=True):
        assert losses == pytest.approx(one_process[0][0], rel=BFLOAT16_TOLERANCE), case


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
