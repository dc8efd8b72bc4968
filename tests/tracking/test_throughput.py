import time

import pytest
import torch

from llmtrain.tracking import metric_names as names
from llmtrain.tracking.memory import measure_peak_memory_gib
from llmtrain.tracking.throughput import ThroughputMeter, measure_matmul_peak

CPU = torch.device("cpu")


class Clock:
    """A clock that only moves when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.waited = 100.0, 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def build_meter(self) -> ThroughputMeter:
        return ThroughputMeter(
            tokens_per_step=1000,
            flops_per_token=6e6,
            peak_flops=1e11,
            device=CPU,
            read_wait_seconds=lambda: self.waited,
        )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_an_interval_counts_its_own_steps_time_and_waiting(clock: Clock) -> None:
    meter = clock.build_meter()
    assert clock.build_meter().step_seconds is None
    for _ in range(4):
        clock.now += 0.5
        meter.end_step()
    clock.waited = 0.1
    first = meter.take_interval()
    assert first[names.TOKENS_PER_SECOND] == 2000
    assert first[names.MODEL_FLOPS_UTILIZATION] == pytest.approx(2000 * 6e6 / 1e11)
    assert first[names.STEP_SECONDS] == 0.5
    assert first[names.DATA_WAIT_FRACTION] == pytest.approx(0.05)
    clock.now += 1
    meter.end_step()
    second = meter.take_interval()
    assert second[names.TOKENS_PER_SECOND] == 1000
    assert second[names.DATA_WAIT_FRACTION] == 0
    assert meter.tokens_per_second == pytest.approx(5000 / 3)
    assert meter.step_seconds == 1  # the first interval warms up
    assert meter.data_wait_fraction == pytest.approx(0.1 / 3)


def test_evaluating_and_saving_do_not_slow_the_measured_throughput(clock: Clock) -> None:
    meter = clock.build_meter()
    clock.now += 1
    meter.end_step()
    with meter.paused():
        clock.now += 30
    assert meter.take_interval()[names.STEP_SECONDS] == pytest.approx(1)
    # A pause after the interval was taken belongs to the next one, and is left out there.
    with meter.paused():
        clock.now += 30
    clock.now += 2
    meter.end_step()
    assert meter.take_interval()[names.STEP_SECONDS] == pytest.approx(2)
    assert meter.tokens_per_second == pytest.approx(2000 / 3)


def test_a_meter_that_has_measured_nothing_reads_zero(clock: Clock) -> None:
    meter = clock.build_meter()
    assert (meter.tokens_per_second, meter.model_flops_utilization, meter.data_wait_fraction) == (0, 0, 0)


def test_the_matmul_peak_is_no_lower_than_a_product_timed_by_hand() -> None:
    peak = measure_matmul_peak(CPU, torch.float32, seconds=0.02)
    a = torch.rand(256, 256)
    started = time.perf_counter()
    torch.mm(a, a)
    assert peak > 2 * 256**3 / (time.perf_counter() - started) / 100
    assert 1e8 < peak < 1e15


def test_peak_memory_grows_with_what_is_held() -> None:
    before = measure_peak_memory_gib(CPU)
    held = torch.ones(256 * 2**20, dtype=torch.uint8)
    assert held.sum() == 256 * 2**20
    assert 0 < before <= measure_peak_memory_gib(CPU)
