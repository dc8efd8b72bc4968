"""How fast a run is: tokens per second, and the share of the machine's arithmetic that the model's maths uses."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from llmtrain.tracking import metric_names as names
from llmtrain.tracking.memory import measure_peak_memory_gib

_MATRIX_SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}


def measure_matmul_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """FLOP/s of the best of several square matrix products: what this machine can do at most.

    Args:
        device: where.
        dtype: format of the matrices.
        seconds: spent on each size.
    """
    best = 0.0
    for size in _MATRIX_SIZES[device.type]:
        a, b = torch.rand(2, size, size, device=device).to(dtype)
        out = a @ b
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            _wait_for(device)
            started = time.perf_counter()
            torch.mm(a, b, out=out)
            _wait_for(device)
            best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


class ThroughputMeter:
    """Counts steps and the time they take; time spent outside of training is left out."""

    def __init__(
        self,
        *,
        tokens_per_step: int,
        flops_per_token: float,
        peak_flops: float,
        device: torch.device,
        read_wait_seconds: Callable[[], float],
    ) -> None:
        """Start the clock.

        Args:
            tokens_per_step: of all ranks.
            flops_per_token: model FLOPs, forward and backward.
            peak_flops: FLOP/s of all ranks together.
            device: of this rank.
            read_wait_seconds: time that training has waited for data so far.
        """
        self._tokens_per_step, self._flops_per_token = tokens_per_step, flops_per_token
        self.peak_flops, self.device, self._read_wait_seconds = peak_flops, device, read_wait_seconds
        self._step_seconds: list[float] = []
        self._total_steps, self._total_seconds, self._total_wait_seconds = 0, 0.0, 0.0
        self._start_interval()

    @property
    def tokens_per_second(self) -> float:
        """Of all ranks, over all intervals so far."""
        return self._total_steps * self._tokens_per_step / self._total_seconds if self._total_seconds else 0.0

    @property
    def step_seconds(self) -> float | None:
        """Time of a step: the median of all intervals but the first, which warms up; None before one is over."""
        return statistics.median(self._step_seconds[1:] or self._step_seconds) if self._step_seconds else None

    @property
    def model_flops_utilization(self) -> float:
        """Model FLOP/s over peak FLOP/s, over the same time."""
        return self.tokens_per_second * self._flops_per_token / self.peak_flops

    @property
    def data_wait_fraction(self) -> float:
        """Share of that time spent waiting for data."""
        return self._total_wait_seconds / self._total_seconds if self._total_seconds else 0.0

    def end_step(self) -> None:
        """Count one optimizer step."""
        self._steps += 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time inside, e.g. of an evaluation or a save."""
        started = time.perf_counter()
        yield
        self._paused_seconds += time.perf_counter() - started

    def take_interval(self) -> dict[str, float]:
        """Metrics since the call before, and start anew."""
        seconds = time.perf_counter() - self._started - self._paused_seconds
        wait_seconds = self._read_wait_seconds() - self._wait_before
        tokens_per_second = self._steps * self._tokens_per_step / seconds
        metrics = {
            names.TOKENS_PER_SECOND: tokens_per_second,
            names.MODEL_FLOPS_UTILIZATION: tokens_per_second * self._flops_per_token / self.peak_flops,
            names.STEP_SECONDS: seconds / self._steps,
            names.DATA_WAIT_FRACTION: wait_seconds / seconds,
            names.PEAK_MEMORY_GIB: measure_peak_memory_gib(self.device),
        }
        self._step_seconds.append(seconds / self._steps)
        self._total_steps += self._steps
        self._total_seconds += seconds
        self._total_wait_seconds += wait_seconds
        self._start_interval()
        return metrics

    def _start_interval(self) -> None:
        self._started = time.perf_counter()
        self._paused_seconds, self._steps = 0.0, 0
        self._wait_before = self._read_wait_seconds()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
