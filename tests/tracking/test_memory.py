import gc

import pytest
import torch

from llmtrain.tracking.memory import HostTensors

MIB = 2**20


def make(mebibytes: int) -> torch.Tensor:
    return torch.ones(mebibytes * MIB // 4)


@pytest.fixture(autouse=True)
def collected() -> None:
    gc.collect()


def test_what_dies_on_the_way_counts_only_while_it_lives() -> None:
    with HostTensors() as tensors:
        before = tensors.held_bytes
        for _ in range(5):
            first = make(4)
            second = first * 2  # the one of the round before lives until it is replaced
            del first
        assert tensors.held_bytes - before == 4 * MIB
        del second
        assert tensors.held_bytes == before
    assert tensors.peak_bytes - before == 12 * MIB


def test_views_and_work_in_place_take_nothing() -> None:
    with HostTensors() as tensors:
        before = tensors.held_bytes
        values = make(4)
        values.view(4, -1).t().mul_(2)
        assert tensors.peak_bytes - before == 4 * MIB


def test_what_was_there_before_counts_until_it_goes() -> None:
    weight = make(8)
    with HostTensors() as tensors:
        before = tensors.held_bytes
        assert before >= 8 * MIB
        del weight
        assert before - tensors.held_bytes == 8 * MIB


def test_what_a_backward_pass_needs_lives_until_then() -> None:
    weight = make(4).requires_grad_()
    with HostTensors() as tensors:
        before = tensors.held_bytes
        loss = (weight * 2).exp().sum()  # keeps the result of exp
        assert tensors.held_bytes - before == pytest.approx(4 * MIB, rel=1e-5)
        loss.backward()  # type: ignore[no-untyped-call]
        del loss
        assert tensors.held_bytes - before == 4 * MIB  # the gradient
