"""The loop, the same for every layout.

for each optimizer step:
    micro-batches <- loader        prefetched, a function of the step number
    engine.train_step              forward, backward, refuse a loss that is not finite, update
    recorder.add                   metrics every log_every_steps
    check_replicas                 do ranks that share weights hold the same ones?
    saver.poll                     a save that runs beside training: over, or failed?
    evaluate, sample, save         when due, and at the end
    plan_check.record              after a save: what was planned beside what was measured
    stop                           when any rank was asked to, after saving
The watchdog is told each time what this rank does from now on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmtrain.config.root import Config
from llmtrain.data.loader import TrainingLoader
from llmtrain.optim.schedule import compute_learning_rate
from llmtrain.parallel.engine import Engine, SourceLosses
from llmtrain.plan.build import Plan
from llmtrain.process.signals import StopRequest
from llmtrain.process.watchdog import Watchdog
from llmtrain.training.divergence import DivergenceMonitor
from llmtrain.training.plan_check import PlanCheck
from llmtrain.training.recorder import Recorder
from llmtrain.training.resume import Saver


@dataclass(frozen=True)
class TrainingRun:
    """Everything the loop works with. Functions, and methods of `saver` and `plan_check`, are called on all ranks."""

    config: Config
    plan: Plan
    engine: Engine
    loader: TrainingLoader
    recorder: Recorder
    monitor: DivergenceMonitor
    stop: StopRequest
    watchdog: Watchdog
    check_replicas: Callable[[int], None]
    evaluate: Callable[[], SourceLosses]
    sample: Callable[[], Sequence[tuple[str, str]]]
    saver: Saver
    plan_check: PlanCheck


def train(run: TrainingRun, first_step: int) -> int:
    """Train from `first_step` to the end of the plan, or until a stop signal.

    Args:
        run: what to train with.
        first_step: optimizer steps already taken.

    Returns:
        Optimizer steps taken in all: fewer than planned after a signal, and then saved.

    Raises:
        DivergenceError: the loss is not finite, or stays too high. Nothing is saved after that.
        ParallelError: ranks that share weights hold different ones.
        CheckpointError: a save failed, this or an earlier step.
    """
    config, plan, recorder, watchdog = run.config, run.plan, run.recorder, run.watchdog
    for step in range(first_step, plan.train_steps):
        done, is_last = step + 1, step + 1 == plan.train_steps
        watchdog.enter("step", done)
        batches = run.loader.load_step(step)
        learning_rate = compute_learning_rate(step, config.optimizer.learning_rate, plan.train_steps, config.schedule)
        with run.plan_check.watching():
            result = run.engine.train_step(batches, learning_rate, run.stop.is_set)
        run.monitor.update(done, result.losses.mean)
        recorder.add(done, result, learning_rate)
        run.saver.poll()
        with recorder.paused():
            saves = is_last or result.stop_requested or _is_due(done, config.checkpoint.save_every_steps)
            every = config.parallel.check_replicas_every_steps
            if every is not None and (saves or _is_due(done, every)):  # what is saved has been compared
                run.check_replicas(done)
            if is_last or _is_due(done, config.evaluation.evaluate_every_steps):
                watchdog.enter("evaluate", done)
                recorder.record_validation(done, run.evaluate())
            if is_last or _is_due(done, config.sampling.sample_every_steps):
                watchdog.enter("sample", done)
                recorder.record_samples(done, run.sample())
            if saves:
                watchdog.enter("save", done)
                run.saver.save(run.engine, done)
            if is_last or result.stop_requested:
                watchdog.enter("save", done)
                run.saver.wait()
            if saves:
                run.plan_check.record(done, recorder.step_seconds)
        if result.stop_requested:
            return done
    return plan.train_steps


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
