"""The plan of a run: every number that follows from the config, the world and the data. Numbers only.

In: `Config`, world size, the tokenizer's size. Out: `Plan`, and its rows for the table printed before a run.
"""

from dataclasses import dataclass

from llmtrain.config.checks import divisors
from llmtrain.config.root import Config
from llmtrain.errors import ConfigError
from llmtrain.plan.model_shape import ModelShape, build_model_shape
from llmtrain.plan.partition import compute_unit_costs, partition_units


@dataclass(frozen=True)
class Plan:
    """Derived numbers. Sizes in sequences unless the name says otherwise."""

    shape: ModelShape
    sequence_length: int
    micro_batch_size: int
    global_batch_size: int
    world_size: int
    data_parallel_size: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    zero_stage: int
    gradient_accumulation_steps: int
    train_steps: int
    stage_borders: tuple[int, ...]
    """Units (embedding, blocks, output) at which pipeline stages begin and end, see `plan.partition`."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens per optimizer step over all ranks."""
        return self.global_batch_size * self.sequence_length

    @property
    def train_tokens(self) -> int:
        """Tokens of the whole run."""
        return self.train_steps * self.tokens_per_step

    @property
    def flops_per_token(self) -> float:
        """Model FLOPs per token, forward and backward."""
        return self.shape.compute_flops_per_token(self.sequence_length)

    @property
    def pipeline_bubble_fraction(self) -> float:
        """Share of a step in which a rank of a 1F1B pipeline waits, if all stages and passes cost the same.

        Source:
            Narayanan et al. 2021, section 2.2.1; for two stages on each rank, section 2.2.2.
        """
        ranks, stages = self.pipeline_parallel_size, len(self.stage_borders) - 1
        passes = self.gradient_accumulation_steps * stages // ranks
        return (ranks - 1) / (passes + ranks - 1)

    def describe(self) -> list[tuple[str, str]]:
        """Rows of the table printed before a run."""
        shape = self.shape
        return [
            ("model", f"{shape.family}, {shape.num_layers} layers x {shape.hidden_size}"),
            ("parameters", f"{shape.num_parameters:,}"),
            ("vocabulary", f"{shape.vocab_size:,} (padded to {shape.padded_vocab_size:,})"),
            (
                "ranks",
                f"{self.world_size} = data {self.data_parallel_size} x tensor {self.tensor_parallel_size} "
                f"x pipeline {self.pipeline_parallel_size}, ZeRO stage {self.zero_stage}",
            ),
            (
                "batch",
                f"{self.global_batch_size} sequences x {self.sequence_length} tokens = {self.tokens_per_step:,} tokens "
                f"({self.micro_batch_size} x {self.data_parallel_size} ranks x {self.gradient_accumulation_steps} "
                "accumulation steps)",
            ),
            *(
                [("pipeline bubble", f"{self.pipeline_bubble_fraction:.0%} of a step, if all stages cost the same")]
                if self.pipeline_parallel_size > 1
                else []
            ),
            ("training", f"{self.train_steps:,} steps, {self.train_tokens:,} tokens"),
            (
                "model FLOPs",
                f"{self.flops_per_token:,.0f} per token, {self.flops_per_token * self.train_tokens:.3g} in all",
            ),
        ]


def build_plan(config: Config, world_size: int, tokenizer_vocab_size: int) -> Plan:
    """Derive the numbers of a run.

    Args:
        config: the resolved configuration.
        world_size: ranks.
        tokenizer_vocab_size: ids of the tokenizer that made the shards.

    Raises:
        ConfigError: sizes do not divide, there are more stages than blocks, or the vocabulary differs from the
            tokenizer's.
    """
    batch, parallel = config.batch, config.parallel
    data_parallel_size = _divide_world(config, world_size)
    per_forward = batch.micro_batch_size * data_parallel_size
    if batch.global_batch_size % per_forward:
        quotient = batch.global_batch_size // batch.micro_batch_size
        raise ConfigError(
            f"batch.global_batch_size = {batch.global_batch_size} is not a multiple of batch.micro_batch_size "
            f"{batch.micro_batch_size} x {data_parallel_size} data-parallel ranks = {per_forward}. Start "
            f"{divisors(quotient)} data-parallel ranks, or choose a multiple of {per_forward}."
        )
    hierarchical_size = parallel.hierarchical_partition_size
    if hierarchical_size is not None and data_parallel_size % hierarchical_size:
        raise ConfigError(
            f"parallel.hierarchical_partition_size = {hierarchical_size} does not divide {data_parallel_size} "
            f"data-parallel ranks. Choose {divisors(data_parallel_size)}: as many as a machine has."
        )
    if config.model.vocab_size not in (None, tokenizer_vocab_size):
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size} differs from the tokenizer in {config.data.folder}, which "
            f"has {tokenizer_vocab_size} ids. Leave model.vocab_size out, or use the tokenizer it was meant for."
        )
    steps = config.training.train_steps
    if steps is None:
        tokens_per_step = batch.global_batch_size * batch.sequence_length
        steps = -(-(config.training.train_tokens or 0) // tokens_per_step)
    _check_schedule_fits(config, steps)
    accumulation_steps = batch.global_batch_size // per_forward
    shape = build_model_shape(config.model, tokenizer_vocab_size, batch.sequence_length, parallel.tensor_parallel_size)
    return Plan(
        shape=shape,
        sequence_length=batch.sequence_length,
        micro_batch_size=batch.micro_batch_size,
        global_batch_size=batch.global_batch_size,
        world_size=world_size,
        data_parallel_size=data_parallel_size,
        tensor_parallel_size=parallel.tensor_parallel_size,
        pipeline_parallel_size=parallel.pipeline_parallel_size,
        zero_stage=parallel.zero_stage,
        gradient_accumulation_steps=accumulation_steps,
        train_steps=steps,
        stage_borders=_draw_stage_borders(config, shape, accumulation_steps),
    )


def _divide_world(config: Config, world_size: int) -> int:
    """Data-parallel size: what is left of the world when tensor and pipeline ranks are taken."""
    tensor, pipeline = config.parallel.tensor_parallel_size, config.parallel.pipeline_parallel_size
    model_ranks = tensor * pipeline
    if world_size % model_ranks:
        below, above = world_size // model_ranks * model_ranks, -(-world_size // model_ranks) * model_ranks
        nearest = f"{below} or {above}" if below else str(above)
        raise ConfigError(
            f"world: {world_size} ranks are no multiple of parallel.tensor_parallel_size {tensor} x "
            f"parallel.pipeline_parallel_size {pipeline} = {model_ranks}. Start {nearest} ranks, or change the sizes."
        )
    return world_size // model_ranks


def _draw_stage_borders(config: Config, shape: ModelShape, accumulation_steps: int) -> tuple[int, ...]:
    size, is_two_way = config.parallel.pipeline_parallel_size, config.parallel.pipeline_schedule == "dualpipev"
    stages = 2 * size if is_two_way and size > 1 else size
    if stages > shape.num_layers:
        raise ConfigError(
            f"parallel.pipeline_parallel_size = {size} makes {stages} stages, the model has {shape.num_layers} blocks. "
            f"Choose at most {shape.num_layers * size // stages}."
        )
    if is_two_way and size > 1 and accumulation_steps < stages:
        raise ConfigError(
            f"parallel.pipeline_schedule = 'dualpipev' with {size} pipeline ranks needs at least {stages} accumulation "
            f"steps, this batch has {accumulation_steps}. Raise batch.global_batch_size, lower batch.micro_batch_size, "
            "or choose '1f1b'."
        )
    return tuple(partition_units(compute_unit_costs(shape, config.batch.sequence_length), stages))


def _check_schedule_fits(config: Config, train_steps: int) -> None:
    decay_steps = getattr(config.schedule, "decay_steps", None) or 0
    if config.schedule.warmup_steps + decay_steps > train_steps:
        raise ConfigError(
            f"schedule.warmup_steps = {config.schedule.warmup_steps} and decay_steps = {decay_steps} exceed the "
            f"{train_steps} steps that training.train_tokens = {config.training.train_tokens} makes. Make their sum at "
            f"most {train_steps}."
        )
