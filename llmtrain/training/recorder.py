"""Results of steps -> metrics in the run folder. Rank 0 writes; the others only keep the sums.

Every line of metrics holds means since the line before. The sums of an unfinished interval go into checkpoints, so that
a resumed run writes the same lines as one that was never stopped.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from llmtrain.parallel.engine import SourceLosses, StepResult
from llmtrain.shards.reader import ShardedTokens
from llmtrain.tracking import metric_names as names
from llmtrain.tracking.console import TrainingConsole
from llmtrain.tracking.run_folder import RunWriter
from llmtrain.tracking.throughput import ThroughputMeter


class Recorder:
    """Collects what steps tell and writes it every `log_every_steps`."""

    def __init__(
        self,
        sources: Sequence[str],
        shards: Mapping[str, ShardedTokens],
        log_every_steps: int,
        train_steps: int,
        writer: RunWriter | None,
        meter: ThroughputMeter,
    ) -> None:
        """Make a recorder.

        Args:
            sources: names, in the order of the source index.
            shards: training shards by source; their size tells epochs.
            log_every_steps: steps of an interval.
            train_steps: steps of the run; the last one always ends an interval.
            writer: the run folder; None on ranks that do not write.
            meter: throughput.
        """
        self._sources = list(sources)
        self._tokens_on_disk = [shards[source].token_count for source in sources]
        self._log_every_steps, self._train_steps = log_every_steps, train_steps
        self._writer, self._meter = writer, meter
        self.console: TrainingConsole | None = None
        """Progress for people, on the rank that shows it."""
        self._tokens_seen = [0.0] * len(sources)
        self._bubble_fraction = 0.0
        self._validation: tuple[int, float] | None = None
        self._start_interval()

    def add(self, step: int, result: StepResult, learning_rate: float) -> None:
        """Take one optimizer step; write a line when the interval is over."""
        for i, (loss_sum, tokens) in enumerate(zip(result.losses.loss_sums, result.losses.token_counts, strict=True)):
            self._loss_sums[i] += loss_sum
            self._token_counts[i] += tokens
            self._tokens_seen[i] += tokens
        self._grad_norm_sum += result.grad_norm
        self._bubble_fraction = result.pipeline_bubble_fraction
        self._steps += 1
        self._meter.end_step()
        if self.console is not None:
            self.console.update(step, result.losses.mean)
        if step % self._log_every_steps == 0 or step == self._train_steps:
            self._write_interval(step, learning_rate)
            self._start_interval()

    def record_validation(self, step: int, losses: SourceLosses) -> None:
        """Write losses per source on the validation windows; keep their mean for the choice of the best checkpoint."""
        by_source = self._means(losses.loss_sums, losses.token_counts)
        self._validation = (step, losses.mean)
        metrics = {names.VALIDATION_LOSS: losses.mean}
        metrics |= {names.validation_loss_of(source): loss for source, loss in by_source.items()}
        self._write(step, metrics)
        self._say(f"step {step}: validation loss {losses.mean:.4f} ({_list_losses(by_source)})")

    def record_samples(self, step: int, samples: Sequence[tuple[str, str]]) -> None:
        """Write generated text."""
        for prompt, text in samples:
            if self._writer is not None:
                self._writer.log_sample(step, prompt, text)
            self._say(f"step {step}: sample {prompt!r} -> {text!r}")

    def record_save(self, step: int, stall_seconds: float, save_seconds: float) -> None:
        """Write how long training stood still for a checkpoint, and how long it took until it was committed."""
        self._write(step, {names.SAVE_STALL_SECONDS: stall_seconds, names.SAVE_SECONDS: save_seconds})

    def validation_loss_at(self, step: int) -> float | None:
        """The validation loss, if it was measured after exactly this step."""
        return self._validation[1] if self._validation is not None and self._validation[0] == step else None

    @property
    def step_seconds(self) -> float | None:
        """Time of a step of this attempt, see `ThroughputMeter`; None before its first interval is over."""
        return self._meter.step_seconds

    def paused(self) -> AbstractContextManager[None]:
        """Leave the time inside out of the throughput."""
        return self._meter.paused()

    def state(self) -> dict[str, Any]:
        """The sums of the unfinished interval, as plain values."""
        rows = zip(self._sources, self._loss_sums, self._token_counts, self._tokens_seen, strict=True)
        return {
            "sources": {source: [loss, count, seen] for source, loss, count, seen in rows},
            "grad_norm_sum": self._grad_norm_sum,
            "steps": self._steps,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue the interval of a checkpoint; sources that joined the mixture since begin at zero."""
        rows = [state["sources"].get(source, (0.0, 0.0, 0.0)) for source in self._sources]
        self._loss_sums, self._token_counts, self._tokens_seen = (list(column) for column in zip(*rows, strict=True))
        self._grad_norm_sum, self._steps = state["grad_norm_sum"], state["steps"]

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.console is not None:
            self.console.close()

    def _start_interval(self) -> None:
        self._loss_sums = [0.0] * len(self._sources)
        self._token_counts = [0.0] * len(self._sources)
        self._grad_norm_sum, self._steps = 0.0, 0

    def _write_interval(self, step: int, learning_rate: float) -> None:
        losses = SourceLosses(self._loss_sums, self._token_counts)
        metrics = {
            names.TRAIN_LOSS: losses.mean,
            names.GRAD_NORM: self._grad_norm_sum / self._steps,
            names.LEARNING_RATE: learning_rate,
            names.TRAIN_TOKENS: sum(self._tokens_seen),
        }
        for source, loss in self._means(self._loss_sums, self._token_counts).items():
            metrics[names.train_loss_of(source)] = loss
        for source, seen, there in zip(self._sources, self._tokens_seen, self._tokens_on_disk, strict=True):
            metrics[names.epoch_of(source)] = seen / there
        metrics |= self._meter.take_interval()
        if self._bubble_fraction:  # of the last step; there is none without a pipeline
            metrics[names.PIPELINE_BUBBLE_FRACTION] = self._bubble_fraction
        self._write(step, metrics)
        if self.console is not None:
            self.console.log(step, metrics)

    def _means(self, loss_sums: Sequence[float], token_counts: Sequence[float]) -> dict[str, float]:
        rows = zip(self._sources, loss_sums, token_counts, strict=True)
        return {source: loss / tokens for source, loss, tokens in rows if tokens}

    def _write(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._writer is not None:
            self._writer.log_metrics(step, {name: value for name, value in metrics.items() if math.isfinite(value)})

    def _say(self, line: str) -> None:
        if self.console is not None:
            self.console.print(line)


def _list_losses(by_source: Mapping[str, float]) -> str:
    return ", ".join(f"{source} {loss:.4f}" for source, loss in by_source.items())
