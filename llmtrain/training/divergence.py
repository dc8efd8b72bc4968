"""Tell a run that has gone wrong from one that merely had a bad batch."""

from collections.abc import Mapping

from llmtrain.errors import DivergenceError


class DivergenceMonitor:
    """Raises when the loss stays far above its lowest value for many steps in a row."""

    def __init__(self, max_increase: float | None, patience_steps: int) -> None:
        self._max_increase, self._patience_steps = max_increase, patience_steps
        self._lowest = float("inf")
        self._steps_above = 0

    def state(self) -> dict[str, float]:
        """What must survive a restart."""
        return {"lowest": self._lowest, "steps_above": self._steps_above}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Continue where a checkpoint stood."""
        self._lowest, self._steps_above = state["lowest"], int(state["steps_above"])

    def update(self, step: int, loss: float) -> None:
        """Take the loss of one optimizer step.

        Args:
            step: optimizer steps taken.
            loss: mean over the global batch, nats per token.

        Raises:
            DivergenceError: the loss was too high for too long.
        """
        self._lowest = min(self._lowest, loss)
        if self._max_increase is None or loss <= self._lowest + self._max_increase:
            self._steps_above = 0
            return
        self._steps_above += 1
        if self._steps_above >= self._patience_steps:
            raise DivergenceError(
                f"step {step}: the loss {loss:.4f} has been more than training.divergence_loss_increase = "
                f"{self._max_increase} above its lowest value {self._lowest:.4f} for {self._steps_above} steps. Lower "
                "optimizer.learning_rate and start again from an earlier checkpoint."
            )
