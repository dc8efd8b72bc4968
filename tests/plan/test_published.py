"""The planner against published tables. What is fitted and what is predicted stands in docs/planning.md."""

import statistics
from pathlib import Path

import pytest

from llmtrain.config.cluster import EfficiencyConfig, load_cluster
from llmtrain.config.loader import load_config
from llmtrain.plan.activations import compute_megatron_first_stage_bytes
from llmtrain.plan.build import build_plan
from llmtrain.plan.calibrate import Measured, Share, compute_leave_one_out_errors, fit_efficiency
from llmtrain.plan.feasible import find_obstacles
from llmtrain.plan.flops import PETAFLOP_DAY, Recompute, compute_flops_per_token, compute_simple_training_flops
from llmtrain.plan.memory import GIB, compute_megatron_peak_bytes, judge, judge_bytes, list_rank_memories
from llmtrain.plan.step_time import (
    compute_block_time,
    compute_model_flops_utilization,
    compute_step_time,
)
from llmtrain.plan.workload import Workload, build_workload
from tests.plan.published import (
    KORTHIKANTI,
    MPT_A100,
    MPT_H100,
    WEAK_SCALING,
    KorthikantiRow,
    WeakScalingRow,
    make_shape,
    make_workload,
)

A100, H100 = load_cluster("dgx_a100_80gb"), load_cluster("dgx_h100")
OF_TABLE_5: tuple[Share, ...] = ("matrix_products", "links")
OF_MPT_A100: tuple[Share, ...] = ("fused_attention", "overlap")
OF_MPT_H100: tuple[Share, ...] = ("matrix_products", "fused_attention", "overlap")

# Brown et al. 2020, table D.1: petaflop/s-days, FLOPs, millions of parameters, billions of tokens, FLOPs per parameter
# and token.
TABLE_D_1 = {
    "T5-Small": ("2.08E+00", "1.80E+20", 60, 1000, 3),
    "T5-Base": ("7.64E+00", "6.60E+20", 220, 1000, 3),
    "T5-Large": ("2.67E+01", "2.31E+21", 770, 1000, 3),
    "T5-3B": ("1.04E+02", "9.00E+21", 3000, 1000, 3),
    "T5-11B": ("3.82E+02", "3.30E+22", 11000, 1000, 3),
    "BERT-Base": ("1.89E+00", "1.64E+20", 109, 250, 6),
    "BERT-Large": ("6.16E+00", "5.33E+20", 355, 250, 6),
    "RoBERTa-Base": ("1.74E+01", "1.50E+21", 125, 2000, 6),
    "RoBERTa-Large": ("4.93E+01", "4.26E+21", 355, 2000, 6),
    "GPT-3 Small": ("2.60E+00", "2.25E+20", 125, 300, 6),
    "GPT-3 Medium": ("7.42E+00", "6.41E+20", 356, 300, 6),
    "GPT-3 Large": ("1.58E+01", "1.37E+21", 760, 300, 6),
    "GPT-3 XL": ("2.75E+01", "2.38E+21", 1320, 300, 6),
    "GPT-3 2.7B": ("5.52E+01", "4.77E+21", 2650, 300, 6),
    "GPT-3 6.7B": ("1.39E+02", "1.20E+22", 6660, 300, 6),
    "GPT-3 13B": ("2.68E+02", "2.31E+22", 12850, 300, 6),
    "GPT-3 175B": ("3.64E+03", "3.14E+23", 174600, 300, 6),
}


@pytest.mark.parametrize("name", TABLE_D_1)
def test_the_flops_of_gpt3_table_d1_come_out_to_their_printed_digits(name: str) -> None:
    days, flops, millions, billions, factor = TABLE_D_1[name]
    computed = compute_simple_training_flops(millions * 1e6, billions * 1e9, factor)
    assert f"{computed / PETAFLOP_DAY:.2E}" == days
    # BERT's rows end in a 5, which the paper rounds up: half a unit of the last digit is allowed.
    assert computed == pytest.approx(float(flops), abs=0.5001 * 10 ** (len(str(int(float(flops)))) - 3))


@pytest.mark.parametrize("row", KORTHIKANTI, ids=lambda row: row.name)
def test_activations_of_korthikanti_figure_1_are_exact(row: KorthikantiRow) -> None:
    none = compute_megatron_first_stage_bytes(row.make("none", False)) / GIB
    present = compute_megatron_first_stage_bytes(row.make("selective", True)) / GIB
    assert none == pytest.approx(row.none_gib, abs=0.005)
    assert present == pytest.approx(row.present_gib, abs=0.005)


@pytest.mark.parametrize("row", KORTHIKANTI, ids=lambda row: row.name)
def test_shares_of_korthikanti_figure_7_are_within_two_points(row: KorthikantiRow) -> None:
    kinds: tuple[tuple[Recompute, bool], ...] = (
        ("none", True),
        ("selective", False),
        ("selective", True),
        ("full", False),
    )
    baseline = compute_megatron_first_stage_bytes(row.make("none", False))
    for (recompute, shared), published in zip(kinds, row.figure_7, strict=True):
        percent = 100 * compute_megatron_first_stage_bytes(row.make(recompute, shared)) / baseline
        assert percent == pytest.approx(published, abs=0.2)  # asked for: two points


@pytest.mark.parametrize("row", KORTHIKANTI, ids=lambda row: row.name)
def test_mfu_and_hfu_of_korthikanti_table_5_are_within_half_a_point(row: KorthikantiRow) -> None:
    work = row.make("selective", True)
    mfu = 100 * compute_model_flops_utilization(work, A100, row.present_seconds, "full")
    hardware = compute_flops_per_token(row.shape, 2048, "full", "selective", counts_padding=True)
    hfu = 100 * work.tokens_per_step * hardware / (row.present_seconds * work.world_size * 312e12)
    assert mfu == pytest.approx(row.mfu, abs=0.5)
    assert hfu == pytest.approx(row.hfu, abs=0.5)


def list_measured_steps() -> list[Measured]:
    """Both columns of table 5: everything recomputed, and selective recompute with shared sequences."""
    return [
        step
        for row in KORTHIKANTI
        for step in ((row.make("full", False), row.full_seconds), (row.make("selective", True), row.present_seconds))
    ]


def test_the_shipped_shares_of_the_a100_are_those_fitted_to_table_5() -> None:
    start = EfficiencyConfig(matrix_products=0.7, links=0.7)
    fitted = fit_efficiency(list_measured_steps(), A100.model_copy(update={"efficiency": start}), OF_TABLE_5)
    assert fitted.efficiency == EfficiencyConfig() == A100.efficiency


def test_times_of_korthikanti_table_5_are_predicted_from_the_other_rows() -> None:
    errors = [abs(error) for error in compute_leave_one_out_errors(list_measured_steps(), A100, OF_TABLE_5)]
    assert statistics.mean(errors) < 0.021  # asked for: 0.035
    assert max(errors) < 0.030


def test_the_block_of_korthikanti_table_4_takes_what_was_measured() -> None:
    row = KORTHIKANTI[0]
    measured: tuple[tuple[Recompute, bool, float, float], ...] = (
        ("none", False, 7.7, 11.9),
        ("full", False, 7.7, 19.5),
        ("selective", False, 7.7, 13.2),
        ("selective", True, 7.2, 13.1),
    )
    for recompute, shared, forward_ms, backward_ms in measured:
        block = compute_block_time(row.make(recompute, shared), A100)
        forward = block.forward + block.forward_communication
        backward = block.backward + block.backward_communication + block.repeated + block.repeated_communication
        assert 1e3 * forward == pytest.approx(forward_ms, rel=0.05), (recompute, shared)
        assert 1e3 * backward == pytest.approx(backward_ms, rel=0.08), (recompute, shared)


def test_a_step_with_data_parallelism_is_predicted_that_was_in_no_fit() -> None:
    # Korthikanti et al. 2022, section 6.3: 530B on 2,240 devices takes 39.15 s.
    work = make_workload(KORTHIKANTI[2].shape, (8, 35, 2240), (2240, 1), "selective", True, virtual_stages=3)
    assert compute_step_time(work, A100).total == pytest.approx(39.15, rel=0.03)


@pytest.mark.parametrize("row", WEAK_SCALING, ids=lambda row: f"{row.billions}B")
def test_the_parameters_of_sc21_table_1_agree_to_three_digits(row: WeakScalingRow) -> None:
    billions = row.shape.num_parameters / 1e9
    assert f"{billions:.1f}" == f"{row.billions:.1f}"


@pytest.mark.parametrize("row", WEAK_SCALING, ids=lambda row: f"{row.billions}B")
def test_every_layout_of_sc21_table_1_is_accepted_and_fits_80_gb(row: WeakScalingRow) -> None:
    work = row.workload
    assert work.global_batch_size == row.batch[0]
    assert work.world_size == row.layout[2]
    assert judge_bytes(compute_megatron_peak_bytes(work), A100) == "fits"


@pytest.mark.parametrize("row", WEAK_SCALING, ids=lambda row: f"{row.billions}B")
def test_every_layout_of_sc21_table_1_is_a_run_of_ours_that_fits_80_gb(row: WeakScalingRow) -> None:
    (tensor, pipeline, ranks), (global_batch_size, micro_batch_size) = row.layout, row.batch
    overrides = [
        f"model.num_layers={row.shape.num_layers}",
        f"model.hidden_size={row.shape.hidden_size}",
        f"model.num_attention_heads={row.shape.num_attention_heads}",
        "model.vocab_size=51200",
        f"parallel.tensor_parallel_size={tensor}",
        f"parallel.pipeline_parallel_size={pipeline}",
        f"batch.global_batch_size={global_batch_size}",
        f"batch.micro_batch_size={micro_batch_size}",
        "training.activation_recompute=full",
    ]
    config = load_config([Path("configs/pretrain/gpt3_175b.yaml")], overrides).config
    assert find_obstacles(config, ranks, A100) == []
    work = build_workload(config, build_plan(config, ranks, 51_200))
    assert f"{work.shape.num_parameters / 1e9:.1f}" == f"{row.billions:.1f}"
    assert {judge(memory, A100) for memory in list_rank_memories(work)} == {"fits"}


def compute_teraflops(work: Workload) -> float:
    hardware = compute_flops_per_token(work.shape, 2048, "full", "full", counts_padding=True)
    return work.tokens_per_step * hardware / work.world_size / compute_step_time(work, A100).total / 1e12


def test_the_speed_of_sc21_table_1_is_predicted_though_it_was_in_no_fit() -> None:
    errors = [abs(compute_teraflops(row.workload) / row.teraflops - 1) for row in WEAK_SCALING]
    assert statistics.mean(errors) < 0.065  # asked for: 0.08
    assert max(errors) < 0.115


MPT_A100_STEPS: list[Measured] = [(row.workload, row.seconds) for row in MPT_A100]
MPT_H100_STEPS: list[Measured] = [(row.workload, row.seconds) for row in MPT_H100]


def test_the_shares_of_fused_attention_and_overlap_are_those_fitted_to_mpt() -> None:
    assert fit_efficiency(MPT_A100_STEPS, A100, OF_MPT_A100) == A100
    assert fit_efficiency(MPT_H100_STEPS, H100, OF_MPT_H100) == H100


def test_steps_of_mpt_are_predicted_from_the_other_rows() -> None:
    for steps, cluster, shares, mean, worst in (
        (MPT_A100_STEPS, A100, OF_MPT_A100, 0.043, 0.125),
        (MPT_H100_STEPS, H100, OF_MPT_H100, 0.028, 0.09),
    ):
        errors = [abs(error) for error in compute_leave_one_out_errors(steps, cluster, shares)]
        assert statistics.mean(errors) < mean, cluster.name
        assert max(errors) < worst, cluster.name


def test_bloom_s_flops_and_time_per_iteration_agree() -> None:
    # BLOOM's log: 105.22 s for 2,048 sequences on 384 devices, 149.02 TFLOP/s each, every block recomputed.
    shape = make_shape(112, 14336, 70, 250_880)
    per_token = compute_flops_per_token(shape, 2048, "full", "full", counts_padding=True)
    assert 2048 * 2048 * per_token / 384 / 105.22 / 1e12 == pytest.approx(149.02, abs=0.01)
