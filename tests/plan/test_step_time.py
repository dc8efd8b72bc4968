"""Time of a step: its parts follow known formulas and directions."""

import dataclasses

import pytest

from llmtrain.config.cluster import load_cluster
from llmtrain.plan.collectives import all_reduce_seconds, gather_seconds
from llmtrain.plan.flops import compute_flops_per_token
from llmtrain.plan.parameters import list_rank_weights
from llmtrain.plan.step_time import compute_step_time, count_rank_parameters
from llmtrain.plan.traffic import list_traffic
from tests.helpers.shapes import SHAPES
from tests.plan.workloads import load_workload

H100 = load_cluster("dgx_h100")


@pytest.mark.parametrize("name", SHAPES)
def test_flops_are_those_of_the_plan_printed_before_a_run(name: str) -> None:
    shape = SHAPES[name]
    assert compute_flops_per_token(shape, 64) == pytest.approx(shape.compute_flops_per_token(64))


def test_full_recompute_adds_a_third_of_the_blocks_flops() -> None:
    shape = SHAPES["gpt2"]
    head = 6.0 * shape.hidden_size * shape.vocab_size
    once = compute_flops_per_token(shape, 64) - head
    assert compute_flops_per_token(shape, 64, recompute="full") - head == pytest.approx(once * 4 / 3)


def test_a_step_is_the_sum_of_its_parts() -> None:
    step = compute_step_time(load_workload("gpt3_175b", 1536), H100)
    assert step.total == pytest.approx(sum(dataclasses.asdict(step).values()))
    assert min(dataclasses.asdict(step).values()) > 0


def test_the_bubble_is_that_of_1f1b() -> None:
    work = load_workload("gpt3_175b", 1536)
    step = compute_step_time(work, H100)
    busy = step.compute + step.recompute + step.tensor_communication + step.pipeline_communication
    assert step.bubble / busy == pytest.approx(15 / work.gradient_accumulation_steps)


def test_what_is_not_split_is_not_communicated() -> None:
    step = compute_step_time(load_workload("gpt3_1.3b", 1), H100)
    assert (step.tensor_communication, step.pipeline_communication, step.bubble) == (0, 0, 0)
    assert step.data_communication == 0


def test_twice_the_ranks_with_twice_the_batch_take_nearly_the_same_time() -> None:
    small = compute_step_time(load_workload("gpt3_6.7b", 64), H100).total
    large = compute_step_time(load_workload("gpt3_6.7b", 128, "batch.global_batch_size=2048"), H100).total
    assert small < large < 1.05 * small


def test_collectives_within_a_machine_are_faster_than_between_machines() -> None:
    size = 1e9
    inside, outside = gather_seconds(size, 8, 1, 64, H100), gather_seconds(size, 8, 8, 64, H100)
    assert inside == pytest.approx(size * 7 / 8 / (450e9 * 0.67), rel=0.05)
    assert outside == pytest.approx(size * 7 / 8 / (50e9 * 0.67), rel=0.05)
    assert all_reduce_seconds(size, 8, 1, 64, H100) == pytest.approx(2 * inside)
    assert gather_seconds(size, 1, 1, 64, H100) == 0.0


def test_groups_with_several_ranks_on_a_machine_use_all_its_ports() -> None:
    assert gather_seconds(1e9, 64, 1, 64, H100) == pytest.approx(1e9 * 63 / 64 / (400e9 * 0.67), rel=0.05)


def test_groups_that_machines_split_use_the_network_and_the_ports_where_they_are_fewest() -> None:
    inside, split = gather_seconds(1e9, 6, 1, 6, H100), gather_seconds(1e9, 6, 1, 24, H100)  # 2 of 6 on one machine
    assert inside == pytest.approx(1e9 * 5 / 6 / (450e9 * 0.67), rel=0.05)
    assert split == pytest.approx(1e9 * 5 / 6 / (100e9 * 0.67), rel=0.05)
    assert gather_seconds(1e9, 4, 2, 64, H100) == gather_seconds(1e9, 4, 1, 64, H100)
    assert gather_seconds(1e9, 3, 2, 24, H100) > 3 * gather_seconds(1e9, 3, 2, 6, H100)


PERFECT = H100.model_copy(update={"efficiency": H100.efficiency.model_copy(update={"links": 1.0, "overlap": 0.0})})
TWO_TENSOR, TWO_STAGES = "parallel.tensor_parallel_size=2", "parallel.pipeline_parallel_size=2"
AUTOCAST = "precision.parameter_dtype=float32"


@pytest.mark.parametrize("dtype", ["precision.parameter_dtype=bfloat16", AUTOCAST])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("is_shared", ["true", "false"])
@pytest.mark.parametrize(
    "layout", [[], [TWO_TENSOR], [TWO_STAGES], [TWO_TENSOR, TWO_STAGES]], ids=["data", "tensor", "stages", "both"]
)
def test_no_link_carries_more_bytes_than_it_can(layout: list[str], is_shared: str, recompute: str, dtype: str) -> None:
    keys = [f"training.activation_recompute={recompute}", f"parallel.sequence_parallel={is_shared}", dtype]
    work = load_workload("llama_8b", 32, "parallel.zero_stage=1", *keys, *layout)
    step = compute_step_time(dataclasses.replace(work, overlap_communication=False), PERFECT)
    seconds = (step.data_communication, step.tensor_communication, step.pipeline_communication)
    most = [max(getattr(sent, axis) for sent in list_traffic(work)) for axis in ("data", "tensor", "pipeline")]
    ports = PERFECT.devices_per_node // work.tensor_parallel_size
    speeds = (ports * H100.network.gb_per_second, H100.link.gb_per_second, H100.network.gb_per_second)
    for sent, took, speed in zip(most, seconds, speeds, strict=True):
        assert sent <= took * speed * 1e9 * 1.001
    assert most[0] > 0.5 * seconds[0] * speeds[0] * 1e9


@pytest.mark.parametrize("stages", [1, 10, 20])
def test_the_rank_that_holds_most_decides_may_it_be_in_the_middle(stages: int) -> None:
    work = load_workload("gpt3_175b", 8 * stages, f"parallel.pipeline_parallel_size={stages}")
    held = [
        sum(weight.elements for weight in list_rank_weights(work.shape, 8, stages, work.stage_borders, rank))
        for rank in range(stages)
    ]
    assert count_rank_parameters(work) == max(held)
    assert stages == 1 or max(held) > 1.05 * max(held[0], held[-1])
