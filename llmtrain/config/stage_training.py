"""What the sections `sft`, `reward` and `ppo` have in common: the optimizer and the loop of one stage."""

from typing import Annotated, Literal

from pydantic import Field

from llmtrain.config.section import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Section


class StageTraining(Section):
    """AdamW and the loop of one post-training stage."""

    learning_rate: PositiveFloat
    """Peak learning rate."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay rates of AdamW's two moments."""
    epsilon: PositiveFloat = 1e-8
    """Added to the denominator."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of matrices."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this global L2 norm."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Learning rate after the warm-up: constant, or down to zero at the end."""
    warmup_steps: NonNegativeInt = 0
    """Optimizer steps from zero to the peak."""
    micro_batch_size: PositiveInt = 8
    """Sequences of one rank in one forward and backward pass."""
    global_batch_size: PositiveInt = 32
    """Sequences of one optimizer step over all ranks; for `ppo`: responses of one rollout."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Format of matrix products; bfloat16 means autocast over float32 weights."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    """With several ranks: 0 = plain data parallelism; 1 to 3 = DeepSpeed ZeRO."""
    activation_recompute: bool = False
    """Keep only the input of each block and compute the rest again in the backward pass."""
    log_every_steps: PositiveInt = 10
    """Optimizer steps between two lines of metrics."""
    evaluate_every_steps: PositiveInt | None = None
    """Optimizer steps between evaluations on held-out records; null = only at the start and the end."""
    save_every_steps: PositiveInt | None = 100
    """Optimizer steps between checkpoints; null = never."""
    keep_last: PositiveInt = 2
    """Checkpoints kept."""
    validation_fraction: Fraction = 0.05
    """Share of the prompts held out, by hash: a prompt never lies on both sides."""
