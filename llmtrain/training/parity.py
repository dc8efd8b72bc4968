"""Does a layout compute what one process computes? Losses, gradient norms and final weights, side by side.

The reference is a bare loop of torch on rank 0: the same model on one device, AdamW, clipping. It knows nothing of
DeepSpeed, ranks, shards, stages or accumulation. Text is made up, a byte a token.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist

from llmtrain.checkpoint.agreement import gather_from_all
from llmtrain.checkpoint.fragments import held_fragments, parameter_shapes
from llmtrain.config.loader import validate
from llmtrain.config.root import Config
from llmtrain.data.loader import Batch
from llmtrain.model.gpt import GPT, LossOutput
from llmtrain.model.initialize import initialize_weights
from llmtrain.optim.adamw import build_adamw
from llmtrain.optim.schedule import compute_learning_rate
from llmtrain.parallel.engine import Engine
from llmtrain.parallel.layout import build_layout
from llmtrain.plan.build import Plan, build_plan

VOCAB_SIZE, SEQUENCE_LENGTH, GLOBAL_BATCH_SIZE = 270, 32, 16
FIRST_BYTE_ID = 4
_TEXT_SEED, _LEXICON_WORDS, _TEXT_WORDS = 1, 2_000, 100_000
# Sums of float32 in another order: losses agree to some 1e-7, gradient norms to some 1e-6.
RELATIVE_TOLERANCE = 1e-5
# Of the largest weight of a tensor. AdamW divides each gradient by its own size, so where a gradient is nearly zero,
# rounding decides a part of a step of 1e-3.
WEIGHT_TOLERANCE = 1e-3
# bfloat16 has 8 bits of mantissa: a product is off by up to 1/256, a loss over many of them by less than this.
BFLOAT16_RELATIVE_TOLERANCE = 2e-2
BFLOAT16_WEIGHT_TOLERANCE = 2e-1


@dataclass(frozen=True)
class ParityCase:
    """One layout with one kind of model."""

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    zero: int = 1
    family: Literal["llama", "gpt2"] = "llama"
    tied: bool = False
    sequence_parallel: bool = True
    schedule: Literal["1f1b", "dualpipev"] = "1f1b"
    accumulation: int = 1
    recompute: Literal["none", "selective", "full"] = "none"
    dtype: Literal["float32", "bfloat16", "autocast"] = "float32"
    overlap: bool = True
    offload: bool = False
    hierarchical: int | None = None
    """Size of the groups within which ZeRO-3 also keeps whole weights."""
    masked: bool = False
    """Documents are masked from each other, positions start again in each."""

    @property
    def world_size(self) -> int:
        """Ranks."""
        return self.data * self.tensor * self.pipeline

    @property
    def name(self) -> str:
        """What differs from the defaults, in a few words."""
        parts = [f"dp{self.data} tp{self.tensor} pp{self.pipeline} zero{self.zero} {self.family}"]
        parts += ["tied"] * self.tied + ["no sequence parallel"] * (not self.sequence_parallel)
        parts += [self.schedule] * (self.schedule != "1f1b") + [f"accumulation {self.accumulation}"] * (
            self.accumulation > 1
        )
        parts += [f"{self.recompute} recompute"] * (self.recompute != "none") + ["masked"] * self.masked
        parts += ["no overlap"] * (not self.overlap) + ["offload"] * self.offload
        parts += [f"hierarchical {self.hierarchical}"] * (self.hierarchical is not None)
        parts += [self.dtype] * (self.dtype != "float32")
        return ", ".join(parts)

    @property
    def tolerances(self) -> tuple[float, float]:
        """Largest relative difference of losses and gradient norms; of weights."""
        if self.dtype == "float32":
            return RELATIVE_TOLERANCE, WEIGHT_TOLERANCE
        return BFLOAT16_RELATIVE_TOLERANCE, BFLOAT16_WEIGHT_TOLERANCE

    def build_config(self, steps: int) -> Config:
        """The configuration of the case."""
        model: dict[str, Any] = {"num_layers": 4, "hidden_size": 64, "num_attention_heads": 4}
        if self.family == "llama":
            model |= {"num_key_value_heads": 2, "intermediate_size": 96}
        precision = {
            "parameter_dtype": "bfloat16" if self.dtype == "bfloat16" else "float32",
            "compute_dtype": "float32" if self.dtype == "float32" else "bfloat16",
        }
        values = {
            "run": {"name": "parity", "seed": 7},
            "data": {
                "folder": "nowhere",
                "mask_across_documents": self.masked,
                "reset_position_ids": self.masked,
            },
            "batch": {
                "sequence_length": SEQUENCE_LENGTH,
                "global_batch_size": GLOBAL_BATCH_SIZE,
                "micro_batch_size": GLOBAL_BATCH_SIZE // (self.data * self.accumulation),
            },
            "model": model | {"family": self.family, "tie_word_embeddings": self.tied},
            "optimizer": {"learning_rate": 1e-3, "max_grad_norm": 0.5},
            "schedule": {"name": "constant", "warmup_steps": 2},
            "training": {"train_steps": steps, "activation_recompute": self.recompute, "z_loss_coefficient": 1e-4},
            "precision": precision,
            "parallel": {
                "tensor_parallel_size": self.tensor,
                "pipeline_parallel_size": self.pipeline,
                "zero_stage": self.zero,
                "sequence_parallel": self.sequence_parallel,
                "pipeline_schedule": self.schedule,
                "overlap_communication": self.overlap,
                "offload_optimizer": self.offload,
                "hierarchical_partition_size": self.hierarchical,
                "zero3_persistent_parameters_below": 0,
            },
        }
        return validate(values, {(): "parity"})


@dataclass(frozen=True)
class Curve:
    """What a few steps gave."""

    losses: list[float]
    grad_norms: list[float]


@dataclass(frozen=True)
class ParityResult:
    """Largest relative differences of a case from one process; weights relative to the largest weight of a tensor."""

    name: str
    world_size: int
    steps: int
    loss: float
    grad_norm: float
    weights: float
    validation: float
    tolerances: tuple[float, float]
    first_loss: float
    last_loss: float

    @property
    def is_equal(self) -> bool:
        """Whether everything lies within the tolerances, and there was something to learn."""
        tolerance, weight_tolerance = self.tolerances
        is_near = max(self.loss, self.grad_norm, self.validation) <= tolerance and self.weights <= weight_tolerance
        return is_near and self.last_loss < self.first_loss


def compare_with_one_process(case: ParityCase, steps: int, device: torch.device) -> ParityResult:
    """Train a few steps in the layout and in one process. All ranks call it, and get the same result.

    Args:
        case: its world size is that of this process group.
        steps: optimizer steps.
        device: of this rank.
    """
    config = case.build_config(steps)
    plan = build_plan(config, case.world_size, VOCAB_SIZE)
    expected, expected_weights, expected_validation = _share(
        _train_reference(config, plan, device) if dist.get_rank() == 0 else None
    )
    engine = Engine(config, plan, build_layout(plan, dist.get_rank()), device, num_sources=2)
    found, validation = _train(engine, config, plan)
    return ParityResult(
        name=case.name,
        world_size=case.world_size,
        steps=steps,
        loss=_largest_difference(found.losses, expected.losses),
        grad_norm=_largest_difference(found.grad_norms, expected.grad_norms),
        weights=_compare_weights(engine, expected_weights),
        validation=_largest_difference([validation], [expected_validation]),
        tolerances=case.tolerances,
        first_loss=found.losses[0],
        last_loss=found.losses[-1],
    )


def make_global_batch(step: int, config: Config) -> Batch:
    """The sequences of a step: made-up text, with some targets left out and one sequence without.

    Args:
        step: number of the step.
        config: batch sizes and masking.
    """
    text = _make_text()
    rows, length = config.batch.global_batch_size, config.batch.sequence_length
    generator = torch.Generator().manual_seed(step)
    starts = torch.randint(0, len(text) - length - 1, (rows, 1), generator=generator)
    windows = text[starts + torch.arange(length + 1)]
    ids, labels = windows[:, :-1].contiguous(), windows[:, 1:].clone()
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = -100
    labels[step % rows] = -100
    documents = (ids == FIRST_BYTE_ID + ord("\n")).cumsum(1) if config.data.mask_across_documents else None
    positions = None
    if documents is not None:
        index = torch.arange(length).expand(rows, length)
        is_first = torch.diff(documents, dim=1, prepend=documents.new_full((rows, 1), -1)) != 0
        positions = index - torch.where(is_first, index, 0).cummax(1).values
    return Batch(ids, labels, torch.arange(rows) % 2, positions, documents)


def list_own_batches(step: int, config: Config, plan: Plan, data_parallel_rank: int) -> list[Batch]:
    """The micro-batches of one rank: its part of each slice of the global batch."""
    batch, size = make_global_batch(step, config), plan.micro_batch_size
    firsts = [
        (micro * plan.data_parallel_size + data_parallel_rank) * size
        for micro in range(plan.gradient_accumulation_steps)
    ]
    return [batch.map(lambda tensor, first=first: tensor[first : first + size]) for first in firsts]  # type: ignore[misc]


@functools.cache
def _make_text() -> torch.Tensor:
    """Lines of made-up words, some of them frequent: the same on every machine, and there is something to learn."""
    generator = torch.Generator().manual_seed(_TEXT_SEED)
    lengths = torch.randint(2, 9, (_LEXICON_WORDS,), generator=generator).tolist()
    letters = torch.split(torch.randint(ord("a"), ord("z") + 1, (sum(lengths),), generator=generator), lengths)
    frequencies = 1.0 / torch.arange(1, _LEXICON_WORDS + 1)
    chosen = torch.multinomial(frequencies, _TEXT_WORDS, replacement=True, generator=generator).tolist()
    ends = (torch.rand(_TEXT_WORDS, generator=generator) < 0.1).tolist()
    space, line_end = torch.tensor([ord(" ")]), torch.tensor([ord("\n")])
    pieces = [
        piece
        for word, is_end in zip(chosen, ends, strict=True)
        for piece in (letters[word], line_end if is_end else space)
    ]
    return torch.cat(pieces) + FIRST_BYTE_ID


def _train_reference(config: Config, plan: Plan, device: torch.device) -> tuple[Curve, dict[str, torch.Tensor], float]:
    training = config.training
    model = GPT(plan.shape, z_loss_coefficient=training.z_loss_coefficient).to(device)
    initialize_weights(model, config.run.seed)
    optimizer = build_adamw(config.optimizer, model)
    curve = Curve([], [])
    for step in range(plan.train_steps):
        batch = make_global_batch(step, config).to(device)
        output = _forward(model, batch)
        tokens = output.token_count_per_sequence_B.sum()
        (output.loss_sum / tokens).backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = compute_learning_rate(step, config.optimizer.learning_rate, plan.train_steps, config.schedule)
        optimizer.step()
        optimizer.zero_grad()
        curve.losses.append(float(output.loss_per_sequence_B.sum() / tokens))
        curve.grad_norms.append(float(norm))
    with torch.no_grad():
        outputs = [_forward(model, make_global_batch(step, config).to(device)) for step in _validation_steps(plan)]
    loss_sum, tokens = (torch.stack([output[i].sum() for output in outputs]).sum() for i in (1, 2))
    validation = float(loss_sum / tokens)
    return curve, {name: weight.detach().cpu() for name, weight in model.named_parameters()}, validation


def _forward(model: GPT, batch: Batch) -> LossOutput:
    output = model(
        batch.input_ids_BT,
        labels_BT=batch.labels_BT,
        position_ids_BT=batch.position_ids_BT,
        document_ids_BT=batch.document_ids_BT,
    )
    assert isinstance(output, LossOutput)
    return output


def _train(engine: Engine, config: Config, plan: Plan) -> tuple[Curve, float]:
    curve, rank = Curve([], []), engine.layout.data_parallel_rank
    for step in range(plan.train_steps):
        rate = compute_learning_rate(step, config.optimizer.learning_rate, plan.train_steps, config.schedule)
        result = engine.train_step(list_own_batches(step, config, plan, rank), rate, stop_requested=False)
        curve.losses.append(result.losses.mean)
        curve.grad_norms.append(result.grad_norm)
    batches = [batch for step in _validation_steps(plan) for batch in list_own_batches(step, config, plan, rank)]
    return curve, engine.evaluate(batches).mean


def _validation_steps(plan: Plan) -> range:
    """Batches behind the last one of training; several, as a pipeline trains with another number of micro-batches."""
    return range(plan.train_steps, plan.train_steps + 3)


def _share(value: Any) -> Any:
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def _largest_difference(found: list[float], expected: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


def _compare_weights(engine: Engine, expected: dict[str, torch.Tensor]) -> float:
    """Largest difference of a weight over all ranks; infinite when a tensor is missing somewhere."""
    worst = 0.0 if parameter_shapes(engine.deepspeed).keys() == expected.keys() else math.inf
    for fragment in held_fragments(engine.deepspeed):
        scale = float(expected[fragment.name].abs().max())
        for box, views in fragment.boxes():
            difference = (views["weights"].cpu() - expected[fragment.name][box.slices]).abs().max()
            worst = max(worst, float(difference) / scale)
    return max(gather_from_all(worst))


def list_cases(max_world_size: int = 8) -> list[ParityCase]:
    """The whole table: every layout with every ZeRO stage it may have, then each kind of model and step on some."""
    cases = [
        ParityCase(data=data, tensor=tensor, pipeline=pipeline, zero=zero)
        for pipeline in (1, 2, 4)
        for tensor in (1, 2, 4)
        for data in (1, 2, 4)
        for zero in (range(4) if pipeline == 1 else range(2))
    ]
    cases += [ParityCase(data=2, zero=zero, accumulation=2, overlap=False) for zero in (1, 2, 3)]
    cases += [ParityCase(data=2, zero=zero, accumulation=2, offload=True) for zero in (1, 2, 3)]
    cases += [ParityCase(data=2, tensor=2, zero=2, offload=True), ParityCase(data=4, zero=3, hierarchical=2)]
    layouts = [
        ParityCase(data=2),
        ParityCase(tensor=2, zero=0),
        ParityCase(tensor=2, data=2, zero=2),
        ParityCase(tensor=2, data=2, zero=3),
        ParityCase(tensor=4),
        ParityCase(pipeline=2, accumulation=4),
        ParityCase(pipeline=2, accumulation=4, schedule="dualpipev"),
        ParityCase(pipeline=2, tensor=2, accumulation=4),
        ParityCase(pipeline=2, tensor=2, data=2, accumulation=2),
        ParityCase(pipeline=2, tensor=2, data=2, zero=0, accumulation=4, schedule="dualpipev"),
    ]
    for case in layouts:
        cases += [
            case,
            dataclasses.replace(case, tied=True),
            dataclasses.replace(case, family="gpt2", tied=True),
            dataclasses.replace(case, family="gpt2"),
            dataclasses.replace(case, recompute="full", accumulation=max(2, case.accumulation)),
            dataclasses.replace(case, recompute="selective"),
            dataclasses.replace(case, masked=True),
            dataclasses.replace(case, dtype="autocast"),
        ]
        cases += [dataclasses.replace(case, dtype="bfloat16")] * (case.zero > 0)
        cases += [dataclasses.replace(case, sequence_parallel=False)] * (case.tensor > 1)
    return list(dict.fromkeys(case for case in cases if case.world_size <= max_world_size))
