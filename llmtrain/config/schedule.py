"""Section `schedule`: learning rate over optimizer steps."""

from typing import Annotated, Literal

from pydantic import Field

from llmtrain.config.section import NonNegativeFloat, NonNegativeInt, PositiveInt, Section


class ConstantSchedule(Section):
    """Linear warm-up, then constant."""

    name: Literal["constant"]
    """Shape of the curve."""
    warmup_steps: NonNegativeInt = 0
    """Optimizer steps from 0 to the peak."""


class _Decaying(Section):
    warmup_steps: NonNegativeInt = 0
    """Optimizer steps from 0 to the peak."""
    decay_steps: PositiveInt | None = None
    """Optimizer steps of the decay; null = all steps after the warm-up."""
    min_learning_rate: NonNegativeFloat = 0.0
    """Learning rate at the end of the decay and after it."""


class CosineSchedule(_Decaying):
    """Linear warm-up, half a cosine down to `min_learning_rate`."""

    name: Literal["cosine"]
    """Shape of the curve."""


class LinearSchedule(_Decaying):
    """Linear warm-up, straight line down to `min_learning_rate`."""

    name: Literal["linear"]
    """Shape of the curve."""


class WarmupStableDecaySchedule(Section):
    """Linear warm-up, constant, linear decay over the last `decay_steps` (Hu et al. 2024)."""

    name: Literal["wsd"]
    """Shape of the curve."""
    warmup_steps: NonNegativeInt = 0
    """Optimizer steps from 0 to the peak."""
    decay_steps: PositiveInt
    """Optimizer steps of the decay, at the end of the run."""
    min_learning_rate: NonNegativeFloat = 0.0
    """Learning rate at the end of the decay."""


ScheduleConfig = Annotated[
    ConstantSchedule | CosineSchedule | LinearSchedule | WarmupStableDecaySchedule, Field(discriminator="name")
]
