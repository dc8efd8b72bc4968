"""Learning rate as a pure function of the optimizer step: nothing to save, nothing to restore."""

import math
from typing import assert_never

from llmtrain.config.schedule import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    ScheduleConfig,
    WarmupStableDecaySchedule,
)


def compute_learning_rate(step: int, peak: float, train_steps: int, schedule: ScheduleConfig) -> float:
    """Learning rate of one optimizer step.

    Args:
        step: steps already taken; the first update uses step 0.
        peak: learning rate after the warm-up.
        train_steps: steps of the run.
        schedule: section `schedule`.

    Returns:
        The rate. During the warm-up step k uses peak * (k + 1) / warmup_steps, so that no update is wasted on zero.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    match schedule:
        case ConstantSchedule():
            return peak
        case WarmupStableDecaySchedule():
            progress = _decay_progress(step, train_steps - schedule.decay_steps, schedule.decay_steps)
            return peak + (schedule.min_learning_rate - peak) * progress
        case LinearSchedule():
            return peak + (schedule.min_learning_rate - peak) * _progress_after_warmup(step, train_steps, schedule)
        case CosineSchedule():
            cosine = 0.5 * (1.0 + math.cos(math.pi * _progress_after_warmup(step, train_steps, schedule)))
            return schedule.min_learning_rate + (peak - schedule.min_learning_rate) * cosine
        case _:
            assert_never(schedule)


def _progress_after_warmup(step: int, train_steps: int, schedule: CosineSchedule | LinearSchedule) -> float:
    return _decay_progress(step, schedule.warmup_steps, schedule.decay_steps or train_steps - schedule.warmup_steps)


def _decay_progress(step: int, first_step: int, decay_steps: int) -> float:
    # The last step of the decay is the first one at the minimum: `decay_steps` steps, ends included.
    return min(1.0, max(0.0, (step - first_step) / max(1, decay_steps - 1)))
