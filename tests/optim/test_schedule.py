import itertools

import pytest

from llmtrain.config.schedule import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    ScheduleConfig,
    WarmupStableDecaySchedule,
)
from llmtrain.optim.schedule import compute_learning_rate

COSINE = CosineSchedule(name="cosine", warmup_steps=10, min_learning_rate=0.1)
LINEAR = LinearSchedule(name="linear", warmup_steps=10, decay_steps=50, min_learning_rate=0.2)
WSD = WarmupStableDecaySchedule(name="wsd", warmup_steps=10, decay_steps=20, min_learning_rate=0.0)


def curve(schedule: ScheduleConfig) -> list[float]:
    return [compute_learning_rate(step, 1.0, 100, schedule) for step in range(100)]


@pytest.mark.parametrize("schedule", [COSINE, LINEAR, WSD, ConstantSchedule(name="constant", warmup_steps=10)])
def test_warm_up_rises_in_equal_steps_to_the_peak(schedule: ScheduleConfig) -> None:
    assert curve(schedule)[:11] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])


def test_cosine_schedule_ends_at_min_learning_rate() -> None:
    rates = curve(COSINE)
    assert rates[-1] == pytest.approx(0.1)
    middle = (rates[54] + rates[55]) / 2
    assert middle == pytest.approx(0.55)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_linear_schedule_stays_at_the_minimum_after_its_decay() -> None:
    rates = curve(LINEAR)
    assert rates[59] == pytest.approx(0.2)
    assert rates[99] == pytest.approx(0.2)
    assert rates[10] - rates[11] == pytest.approx(rates[40] - rates[41])


def test_wsd_is_constant_until_its_last_steps() -> None:
    rates = curve(WSD)
    assert set(rates[9:81]) == {1.0}
    assert rates[81] < 1.0
    assert rates[99] == pytest.approx(0.0)


def test_constant_schedule_stays_at_the_peak() -> None:
    assert set(curve(ConstantSchedule(name="constant"))) == {1.0}
