"""The counter of what a rank sends sees everything and changes nothing."""

import contextlib
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from llmtrain.parallel import traffic
from llmtrain.parallel.layout import Layout
from llmtrain.parallel.start import prepare_deepspeed
from llmtrain.parallel.traffic import TrafficCounter
from llmtrain.plan.traffic import Traffic
from tests.helpers.ranks import run_ranks
from tests.plan.sending import build, train

OVERRIDES = ["parallel.tensor_parallel_size=2", "training.activation_recompute=full"]


def send_known_amounts(folder: str) -> list[Traffic]:
    """What is counted of single operations on two tensor-parallel ranks, in the order in which they are made."""
    prepare_deepspeed(torch.device("cpu"))
    _, _, layout = build(folder, OVERRIDES)
    group, other = layout.tensor_parallel_group, 1 - layout.rank
    whole, part = torch.ones(100), torch.ones(50)

    def exchange() -> None:
        work = [dist.isend(whole, other), dist.irecv(torch.empty(100), other)]
        [handle.wait() for handle in work if handle is not None]

    operations = [
        lambda: dist.all_reduce(whole, group=group),
        lambda: dist.all_gather_into_tensor(whole, part, group=group),
        lambda: dist.all_gather([part.clone(), part.clone()], part, group=group),
        lambda: dist.reduce_scatter_tensor(part, whole, group=group),
        lambda: dist.broadcast(whole, 0, group=group),
        lambda: dist.reduce(whole, 0, group=group),
        exchange,
        lambda: dist.all_reduce(whole, group=layout.data_parallel_group),
        lambda: dist.barrier(group=group),
    ]
    results = []
    for operation in operations:
        counter = TrafficCounter(layout)
        with counter:
            operation()  # type: ignore[no-untyped-call]
        results.append(counter.traffic)
    return results


def test_operations_count_as_rings_send_them(tmp_path: Path) -> None:
    for found in run_ranks(2, send_known_amounts, str(tmp_path)):
        assert [traffic.tensor for traffic in found] == [400, 200, 200, 200, 200, 200, 400, 0, 0]
        assert {(traffic.data, traffic.pipeline) for traffic in found} == {(0, 0)}


def train_with_and_without(folder: str) -> tuple[bool, float, float]:
    """Whether two counted steps give the weights of two that are not; and what was sent, with and without."""
    prepare_deepspeed(torch.device("cpu"))
    weights, sent = [], []
    for counts in (True, False):
        engine, plan, layout = build(folder, OVERRIDES)
        counter = TrafficCounter(layout)
        with counter if counts else contextlib.nullcontext():
            for step in range(2):
                train(engine, plan, layout, step)
        weights.append([parameter.detach().clone() for parameter in engine.module.parameters()])
        sent.append(counter.traffic.total)
    counted, uncounted = sent
    return all(map(torch.equal, *weights)), counted, uncounted


def test_a_step_that_is_counted_gives_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    for is_equal, counted, uncounted in run_ranks(2, train_with_and_without, str(tmp_path)):
        assert is_equal
        assert counted > 0
        assert uncounted == 0


def test_every_operation_of_torch_is_known() -> None:
    names = {name.removeprefix("c10d::") for name in torch._C._dispatch_get_all_op_names() if name.startswith("c10d::")}
    assert names == traffic._FORMULAS.keys() | traffic._SENDING_NOTHING


def send_something_new(folder: str) -> tuple[set[str], float]:
    prepare_deepspeed(torch.device("cpu"))
    _, _, layout = build(folder, [])
    del traffic._FORMULAS["allreduce_"]  # of this process
    counter = TrafficCounter(layout)
    with counter:
        dist.all_reduce(torch.ones(100))
    return counter.unknown, counter.traffic.total


def test_an_operation_that_is_not_known_is_named_and_does_not_fail(tmp_path: Path) -> None:
    assert run_ranks(1, send_something_new, str(tmp_path)) == [({"allreduce_"}, 0)]


@pytest.mark.parametrize(
    ("members", "axis"), [([3], None), ([0, 1], "tensor"), ([0, 2], "data"), ([0, 3], "data"), ([0, 1, 4], "pipeline")]
)
def test_a_group_belongs_to_the_farthest_axis_of_its_ranks(members: list[int], axis: str | None) -> None:
    layout = Layout(0, 2, 2, 2, *[None] * 6)  # type: ignore[arg-type]
    assert traffic.find_axis(members, layout) == axis
