"""Progress for people, on standard error: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from llmtrain.tracking import metric_names as names


class TrainingConsole:
    """Shows the progress of one run; rank 0 has one."""

    def __init__(self, first_step: int, train_steps: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._train_steps, self._is_live = train_steps, self._console.is_terminal
        self._progress = Progress(
            TextColumn("pretrain"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._is_live,
        )
        self._task = self._progress.add_task("pretrain", total=train_steps, completed=first_step, status="")
        self._speed = ""
        self._progress.start()

    def update(self, step: int, loss: float) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=step, status=f"loss {loss:.3f} {self._speed}")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line for the metrics of an interval."""
        self._speed = (
            f"{metrics[names.TOKENS_PER_SECOND]:,.0f} tokens/s, MFU {metrics[names.MODEL_FLOPS_UTILIZATION]:.1%}"
        )
        if not self._is_live:
            self.print(
                f"step {step}/{self._train_steps}  loss {metrics[names.TRAIN_LOSS]:.4f}  "
                f"grad norm {metrics[names.GRAD_NORM]:.3f}  lr {metrics[names.LEARNING_RATE]:.2e}  {self._speed}"
            )

    def print(self, line: str) -> None:
        """A line above the bar."""
        self._console.print(line, markup=False)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()
