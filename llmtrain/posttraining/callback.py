"""What happens beside a trainer's own work: metrics to the run folder, whole checkpoints, evaluation, orderly stops.

Nothing here talks to MLflow: the mirror reads the run folder from a process of its own.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback

from llmtrain.config.stage_training import StageTraining
from llmtrain.errors import DivergenceError
from llmtrain.posttraining.checkpoints import commit_checkpoint
from llmtrain.posttraining.context import StageContext

logger = logging.getLogger(__name__)

# Their name -> ours; what is not here is not written.
_NAMES = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "epoch": "train/epoch",
    "accuracy": "train/pair_accuracy",
    "margin": "train/reward_margin",
    "mean_reward": "train/reward_mean",
}


class StageCallback(TrainerCallback):  # type: ignore[misc]
    """Writes, commits, evaluates and stops.

    Args:
        context: the stage.
        section: its section.
        evaluate: measures on held-out records; all ranks call it, and it gives the same numbers on each.
    """

    def __init__(
        self, context: StageContext, section: StageTraining, evaluate: Callable[[int], Mapping[str, float]]
    ) -> None:
        self._context, self._section, self._evaluate = context, section, evaluate
        self._last = (0, time.monotonic())

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the model as it comes, unless the run resumes."""
        if state.global_step == 0:
            self.evaluate(0)
        self._last = (state.global_step, time.monotonic())

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Write one line of metrics."""
        metrics = {_NAMES[name]: float(value) for name, value in (logs or {}).items() if name in _NAMES}
        if not metrics or "train/loss" not in metrics:
            return
        self._check_finite(state.global_step, metrics)
        step, now = state.global_step, time.monotonic()
        if step > self._last[0]:
            metrics["perf/step_seconds"] = (now - self._last[1]) / (step - self._last[0])
        self._last = (step, now)
        if self._context.writer is not None:
            self._context.writer.log_metrics(step, metrics)
            logger.info("%s", describe_line(step, state.max_steps, metrics))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate when it is time; stop when a signal came to any rank."""
        every = self._section.evaluate_every_steps
        if every is not None and state.global_step % every == 0 and state.global_step < state.max_steps:
            self.evaluate(state.global_step)
        if self._context.agree(self._context.stop.is_set) and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Declare the checkpoint whole once every rank has written its part."""
        self._context.wait_for_all()
        if self._context.world.is_first:
            folder = self._context.checkpoints / f"checkpoint-{state.global_step}"
            commit_checkpoint(
                folder,
                state.global_step,
                self._section.keep_last,
                self._context.world.world_size,
                self._section.zero_stage,
            )
            self._context.log_event("saved", step=state.global_step)
        self._context.wait_for_all()

    def evaluate(self, step: int) -> dict[str, float]:
        """Measure and write."""
        started = time.monotonic()
        metrics = dict(self._evaluate(step))
        self.record(step, metrics)
        self._last = (self._last[0], self._last[1] + time.monotonic() - started)
        return metrics

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write what was measured; nothing where no records are held out."""
        self._check_finite(step, metrics)
        if metrics and self._context.writer is not None:
            self._context.writer.log_metrics(step, metrics)
            logger.info("%s", describe_line(step, None, metrics))

    def _check_finite(self, step: int, metrics: Mapping[str, float]) -> None:
        if broken := ", ".join(name for name, value in metrics.items() if not math.isfinite(value)):
            raise DivergenceError(
                f"{self._context.name}: {broken} not finite at step {step}. Lower "
                f"{self._context.name}.learning_rate, or start again from a checkpoint."
            )


class WithoutModelCard:
    """For trainers of TRL: no page about the trainer in every checkpoint; the card is written with the model."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Called by TRL before it saves."""


def describe_line(step: int, steps: int | None, metrics: Mapping[str, float]) -> str:
    """One line for the terminal: the step and the first numbers by their short names."""
    shown = [(name.partition("/")[2].replace("_", " "), value) for name, value in metrics.items()]
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in shown[:8])
    return f"step {step}{f'/{steps}' if steps else ''}  {numbers}"


def quieten(trainer: Any) -> None:
    """Take away the printing of dictionaries; lines of the stage take its place."""
    from transformers import PrinterCallback, ProgressCallback

    for kind in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(kind)
