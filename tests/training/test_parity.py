"""Every layout computes what one process computes: a fast part of the table of `llmtrain verify parity --all`."""

import dataclasses
from collections.abc import Sequence

import pytest
import torch

from llmtrain.parallel import tensor_layers
from llmtrain.parallel.start import prepare_deepspeed
from llmtrain.training.parity import ParityCase, ParityResult, compare_with_one_process, list_cases
from tests.helpers.ranks import run_ranks

STEPS = 10
CASES = {
    1: [*[ParityCase(zero=zero, tied=True) for zero in range(4)], ParityCase(family="gpt2", accumulation=2)],
    2: [
        *[ParityCase(data=2, zero=zero) for zero in range(4)],
        *[ParityCase(data=2, zero=zero, dtype="bfloat16") for zero in range(1, 4)],
        *[ParityCase(data=2, zero=zero, offload=True) for zero in range(1, 4)],
        ParityCase(data=2, zero=3, accumulation=2, overlap=False),
        *[ParityCase(tensor=2, zero=zero) for zero in range(4)],
        ParityCase(tensor=2, family="gpt2", tied=True, sequence_parallel=False, accumulation=2),
        ParityCase(tensor=2, recompute="selective", tied=True, masked=True, dtype="bfloat16"),
        ParityCase(pipeline=2, zero=0, accumulation=4, tied=True),
        ParityCase(pipeline=2, accumulation=4, family="gpt2", tied=True, recompute="full"),
        ParityCase(pipeline=2, accumulation=4, masked=True, dtype="bfloat16"),
        ParityCase(pipeline=2, accumulation=4, schedule="dualpipev", tied=True, masked=True),
        ParityCase(pipeline=2, accumulation=4, schedule="dualpipev", dtype="autocast"),
    ],
    4: [
        *[ParityCase(data=4, zero=zero, accumulation=2, tied=True) for zero in range(4)],
        ParityCase(tensor=4, zero=1),
        ParityCase(tensor=4, zero=0, family="gpt2"),
        *[ParityCase(tensor=2, data=2, zero=zero, tied=True) for zero in (2, 3)],
        ParityCase(pipeline=4, accumulation=4, tied=True),
        ParityCase(pipeline=2, tensor=2, accumulation=4, masked=True),
        ParityCase(data=4, zero=3, hierarchical=2),
        ParityCase(pipeline=2, data=2, accumulation=2, family="gpt2"),
    ],
    8: [
        ParityCase(pipeline=2, tensor=2, data=2, accumulation=2, tied=True),
        ParityCase(pipeline=2, tensor=2, data=2, zero=0, accumulation=4, schedule="dualpipev", family="gpt2"),
    ],
}


def compare(cases: Sequence[ParityCase], steps: int) -> list[ParityResult]:
    """Several cases in one launch, as a launch costs seconds."""
    prepare_deepspeed(torch.device("cpu"))
    return [compare_with_one_process(case, steps, torch.device("cpu")) for case in cases]


@pytest.mark.parametrize("world_size", CASES)
def test_layouts_compute_what_one_process_computes(world_size: int) -> None:
    for results in run_ranks(world_size, compare, CASES[world_size], STEPS, timeout=280):
        assert [result for result in results if not result.is_equal] == []
        assert len(results) == len(CASES[world_size])


def compare_without_a_sum() -> ParityResult:
    """A layout in which hidden states' gradients are not summed over tensor-parallel ranks."""
    vars(tensor_layers)["copy_in"] = lambda tensor, group: tensor
    return compare([ParityCase(tensor=2, sequence_parallel=False)], 3)[0]


def test_a_wrong_layout_is_told_from_a_right_one() -> None:
    for result in run_ranks(2, compare_without_a_sum):
        assert not result.is_equal
        assert result.grad_norm > 1e-3


def test_the_table_holds_every_layout_once() -> None:
    cases = list_cases()
    assert len({case.name for case in cases}) == len(cases)
    sizes = {(case.data, case.tensor, case.pipeline) for case in cases}
    possible = {(d, t, p) for d in (1, 2, 4) for t in (1, 2, 4) for p in (1, 2, 4) if d * t * p <= 8}
    assert sizes == possible
    for size in possible:
        stages = {case.zero for case in cases if (case.data, case.tensor, case.pipeline) == size}
        assert stages == (set(range(4)) if size[2] == 1 else {0, 1}), size
    for key in (
        "family",
        "tied",
        "recompute",
        "dtype",
        "schedule",
        "masked",
        "sequence_parallel",
        "overlap",
        "offload",
    ):
        assert len({getattr(case, key) for case in cases}) > 1, key


def test_a_case_is_named_by_what_is_special() -> None:
    case = ParityCase(data=2, tensor=2, zero=3, tied=True, dtype="bfloat16")
    assert case.name == "dp2 tp2 pp1 zero3 llama, tied, bfloat16"
    assert dataclasses.replace(case, schedule="dualpipev").name != case.name
