"""An estimate as rows: a number, how a person reads it, its formula and its source.

In: `Estimate`. Out: `Row`s; the table, `--explain` and `--json` are all made of them.
"""

import math
from dataclasses import dataclass

from llmtrain.plan.estimate import Estimate
from llmtrain.plan.flops import compute_flops_per_token
from llmtrain.plan.parameters import count_padding, count_parameters
from llmtrain.plan.traffic import count_repeated_sums, list_traffic

_NEVER_SECONDS = 1e6 * 365 * 86_400
_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"))


@dataclass(frozen=True)
class Row:
    """One number of a plan."""

    group: str
    key: str
    """With its unit."""
    value: float | int | str | None
    """None: other rows hold the numbers of this text."""
    text: str
    """As a person reads it; empty: left to JSON."""
    formula: str
    source: str = ""


def describe_seconds(seconds: float) -> str:
    """`5.2 ms`, `3.1 s`, `4.5 hours`, `12.3 days`; `never` from a million years on, `not known` for no number."""
    if math.isnan(seconds):
        return "not known"
    if seconds >= _NEVER_SECONDS:
        return "never"
    for size, name in ((86_400 * 3, "days"), (3600 * 2, "hours"), (120, "minutes")):
        if seconds >= size:
            unit = {"days": 86_400, "hours": 3600, "minutes": 60}[name]
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:,.2f} s" if seconds >= 0.1 else f"{seconds * 1e3:,.2f} ms"


def describe_bytes(size: float) -> str:
    """`12.3 GiB`, or smaller units."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if size >= unit:
            return f"{size / unit:,.2f} {name}"
    return f"{size / 2**10:,.1f} KiB"


def describe_count(number: float) -> str:
    """`175B`, `1.26M`: three digits and a unit."""
    for size, name in _UNITS:
        if number >= 0.9995 * size and number >= 1e6:  # from where three digits round up to the unit
            return f"{number / size:.3g}{name}"
    return f"{number:,.0f}"


def describe_finite(number: float, unit: str = "", digits: int = 0) -> str:
    """`1,234 t`; `not known` for what has no end or is no number."""
    return f"{number:,.{digits}f}{unit}" if math.isfinite(number) else "not known"


def list_rows(estimate: Estimate) -> list[Row]:
    """Every number of an estimate except memory, which is a table of its own."""
    groups = (_list_model, _list_layout, _list_traffic, _list_time, _list_data, _list_run)
    return [row for list_group in groups for row in list_group(estimate)]


def _list_model(estimate: Estimate) -> list[Row]:
    plan = estimate.plan
    shape, length = plan.shape, plan.sequence_length
    counts = count_parameters(shape)
    parts = ", ".join(f"{name} {describe_count(count)}" for name, count in counts.items() if count)
    recompute = estimate.work.recompute
    done = compute_flops_per_token(shape, length, "causal", "full" if recompute == "full" else "none")
    return [
        Row("model", "parameters", shape.num_parameters, f"{shape.num_parameters:,}", "exact, tied weights once"),
        *[
            Row("model", f"parameters_{name.replace(' ', '_').replace('-', '_')}", count, "", "exact")
            for name, count in counts.items()
        ],
        Row("model", "by_component", None, parts, "exact"),
        Row(
            "model",
            "padding_parameters",
            count_padding(shape),
            f"{shape.padded_vocab_size - shape.vocab_size} rows, {count_padding(shape):,} per table of the vocabulary",
            "(padded_vocab_size - vocab_size) x hidden_size; trained by nothing, saved nowhere",
        ),
        Row(
            "model",
            "model_flops_per_token",
            plan.flops_per_token,
            f"{describe_count(plan.flops_per_token)} (causal attention)",
            "6 x multiply-adds; attention: half of the score matrix",
            "PaLM, Chowdhery et al. 2022, appendix B",
        ),
        Row(
            "model",
            "hardware_flops_per_token",
            done,
            f"{describe_count(done)} with {recompute} recompute",
            "full: + one forward pass of every block; selective repeats no matrix product",
            "Narayanan et al. 2021, equation 3",
        ),
        Row("model", "model_flops_per_step", plan.flops_per_token * plan.tokens_per_step, "", "per token x tokens"),
    ]


def _list_layout(estimate: Estimate) -> list[Row]:
    plan = estimate.plan
    sizes = f"data {plan.data_parallel_size} x tensor {plan.tensor_parallel_size} x pipeline "
    sizes += f"{plan.pipeline_parallel_size}, ZeRO {plan.zero_stage}"
    batch = f"{plan.global_batch_size:,} sequences = {plan.micro_batch_size} x {plan.data_parallel_size} ranks x "
    batch += f"{plan.gradient_accumulation_steps} micro-batches; {plan.tokens_per_step:,} tokens"
    steps = f"{plan.train_steps:,} steps, {describe_count(plan.train_tokens)} tokens"
    return [
        Row("layout", "cluster", estimate.cluster.name, estimate.cluster.name, "configs/clusters"),
        Row("layout", "world_size", plan.world_size, f"{plan.world_size:,} = {sizes}", "data x tensor x pipeline"),
        Row("layout", "tokens_per_step", plan.tokens_per_step, batch, "global_batch_size x sequence_length"),
        Row("layout", "train_steps", plan.train_steps, steps, "train_tokens / tokens per step, rounded up"),
    ]


_DATA_FORMULAS = {
    0: "2 (n-1)/n of all gradients, once",
    1: "2 (n-1)/n of all gradients and (n-1)/n of all weights, once",
    2: "2 (n-1)/n of all gradients each micro-batch, (n-1)/n of all weights once",
    3: "(n-1)/n of all gradients and of the weights that are gathered, once or twice each, each micro-batch",
}


def _list_traffic(estimate: Estimate) -> list[Row]:
    """Of the pipeline rank that sends most."""
    work = estimate.work
    sent = list_traffic(work)
    most = max(sent, key=lambda traffic: traffic.total)
    sums = 4 + sum(count_repeated_sums(work))
    rank = f" by each rank of pipeline rank {sent.index(most)}" if len(sent) > 1 else " by each rank"

    def part(name: str, size: float, formula: str, source: str) -> Row:
        return Row("traffic", f"{name}_bytes", size, describe_bytes(size) if size else "nothing", formula, source)

    return [
        Row(
            "traffic", "sent_bytes", most.total, f"{describe_bytes(most.total)} a step{rank}", "sum of the parts below"
        ),
        part("data", most.data, _DATA_FORMULAS[work.zero_stage], "deepspeed 0.19; ring: Patarasuk and Yuan 2009"),
        part(
            "tensor",
            most.tensor,
            f"{sums:g} sums of hidden states a block and micro-batch, 2 (n-1)/n each; ends of the model, loss, norms",
            "Korthikanti et al. 2022, section 4.2.2",
        ),
        part(
            "pipeline",
            most.pipeline,
            "hidden states to the stage after, gradients to the one before, each micro-batch; a tied embedding once",
            "Narayanan et al. 2021, section 2.2",
        ),
    ]


def _list_time(estimate: Estimate) -> list[Row]:
    step, total = estimate.step, estimate.step.total

    def part(name: str, seconds: float, formula: str, source: str = "") -> Row:
        return Row(
            "step", f"{name}_seconds", seconds, f"{describe_seconds(seconds)}  {seconds / total:.0%}", formula, source
        )

    return [
        Row("step", "step_seconds", total, describe_seconds(total), "sum of the parts below"),
        part(
            "compute",
            step.compute,
            "micro-batches x blocks of the slowest stage x (FLOPs / reached + bytes / reached)",
            "roofline, Williams et al. 2009; shares fitted to Korthikanti et al. 2022, table 5",
        ),
        part("recompute", step.recompute, "full: forward passes again; selective: element-wise work again"),
        part(
            "tensor_communication",
            step.tensor_communication,
            "4 sums per block, and those that recompute repeats",
            "Shoeybi et al. 2019, section 3",
        ),
        part("pipeline_communication", step.pipeline_communication, "2 messages per micro-batch and stage"),
        part("bubble", step.bubble, "(p - 1) / micro-batches of the above", "Narayanan et al. 2021, section 2.2"),
        part(
            "data_communication",
            step.data_communication,
            "gradients (and weights) over ranks, not hidden",
            "Rajbhandari et al. 2020, section 7",
        ),
        part("update", step.update, "50 bytes of traffic per parameter that a rank updates"),
        Row(
            "step",
            "tokens_per_second",
            estimate.tokens_per_second,
            f"{estimate.tokens_per_second:,.0f}",
            "tokens / step",
        ),
        Row(
            "step",
            "model_flops_utilization",
            estimate.model_flops_utilization,
            f"{estimate.model_flops_utilization:.1%} (causal attention)",
            "model FLOPs / (seconds x ranks x peak)",
            "PaLM, Chowdhery et al. 2022, appendix B",
        ),
    ]


def _list_data(estimate: Estimate) -> list[Row]:
    reading = estimate.reading
    told = "hidden by prefetching" if reading.is_hidden else "longer than the step: training waits for it"
    return [
        Row(
            "data",
            "read_bytes_per_second",
            reading.bytes_per_second,
            f"{describe_bytes(reading.bytes_per_second)}/s by all ranks",
            "2 bytes (4 above 65,536 ids) x tokens / (step x data ranks) x ranks: each reads its replica's tokens",
        ),
        Row(
            "data",
            "loader_seconds",
            reading.seconds,
            f"{describe_seconds(reading.seconds)} a step, {told}",
            "tokens / data ranks / 38.7M tokens/s (best_fit: 23.0M) + sequences x 5.9 microseconds, in a thread",
            "measured: docs/results/loader_cpu.json, docs/data-order.md",
        ),
    ]


def _list_run(estimate: Estimate) -> list[Row]:
    cost, found, limits = estimate.cost, estimate.reliability, estimate.cluster.reliability
    seconds = estimate.train_seconds
    return [
        Row("run", "train_seconds", seconds, describe_seconds(seconds), "steps x step / goodput"),
        Row("run", "device_hours", cost.device_hours, describe_finite(cost.device_hours), "ranks x hours"),
        Row(
            "run",
            "price",
            cost.price,
            describe_finite(cost.price) if cost.price else "no price given",
            "device hours x cost.price_per_device_hour",
        ),
        Row(
            "run",
            "energy_mwh",
            cost.energy_mwh,
            describe_finite(cost.energy_mwh, " MWh", 1),
            "device hours x watts x PUE",
            "Touvron et al. 2023, section 6",
        ),
        Row(
            "run",
            "carbon_tonnes",
            cost.carbon_tonnes,
            describe_finite(cost.carbon_tonnes, " t CO2e", 1),
            "energy x cost.carbon_kg_per_kwh",
            "Touvron et al. 2023, section 6",
        ),
        Row(
            "run",
            "checkpoint_bytes",
            estimate.checkpoint_bytes,
            describe_bytes(estimate.checkpoint_bytes),
            "12 bytes per parameter: float32 weight and two moments",
        ),
        Row(
            "run",
            "save_seconds",
            found.save_seconds,
            describe_seconds(found.save_seconds),
            f"checkpoint / {limits.storage_gb_per_second} GB/s",
        ),
        Row(
            "run",
            "failures",
            found.failures,
            f"{found.failures:,.1f}" if math.isfinite(found.failures) else "without end",
            "device hours x reliability.failures_per_device_hour",
            "rate: Llama 3, Grattafiori et al. 2024, 3.3.4",
        ),
        Row(
            "run",
            "goodput",
            found.goodput,
            f"{found.goodput:.1%} with {_describe_configured(estimate)}",
            "progress / time, saved as configured; what is computed before a checkpoint is whole is lost with it",
            "Daly 2006, equation 20",
        ),
        Row(
            "run",
            "best_interval_seconds",
            found.best_interval_seconds,
            _describe_interval(estimate),
            "sqrt(2 x stall x time between failures), higher terms",
            "Daly 2006, equation 37; Young 1974",
        ),
        Row("run", "best_goodput", found.best_goodput, f"{found.best_goodput:.1%}", "goodput at the best interval"),
    ]


def _describe_interval(estimate: Estimate) -> str:
    seconds = estimate.reliability.best_interval_seconds
    if math.isinf(seconds):
        return "never needed"
    steps = max(1, round(seconds / estimate.step.total))
    return f"{describe_seconds(seconds)}: checkpoint.save_every_steps={steps}"


def _describe_configured(estimate: Estimate) -> str:
    every = estimate.save_every_steps
    return (
        f"a checkpoint every {every:,} steps" if every < estimate.plan.train_steps else "a checkpoint only at the end"
    )
