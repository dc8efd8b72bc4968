import pytest

from llmtrain.errors import DivergenceError
from llmtrain.training.divergence import DivergenceMonitor


def test_a_loss_that_stays_high_stops_the_run() -> None:
    monitor = DivergenceMonitor(max_increase=1.0, patience_steps=3)
    monitor.update(1, 5.0)
    monitor.update(2, 6.5)
    monitor.update(3, 6.5)
    with pytest.raises(DivergenceError, match=r"step 4: the loss 6\.5000 .* lowest value 5\.0000 for 3 steps"):
        monitor.update(4, 6.5)


def test_a_short_spike_does_not() -> None:
    monitor = DivergenceMonitor(max_increase=1.0, patience_steps=2)
    for step, loss in enumerate([5.0, 9.0, 5.5, 9.0, 5.5]):
        monitor.update(step, loss)
    assert monitor._steps_above == 0


def test_without_a_limit_nothing_is_watched() -> None:
    monitor = DivergenceMonitor(max_increase=None, patience_steps=1)
    monitor.update(1, 1.0)
    monitor.update(2, 100.0)
    assert monitor._steps_above == 0
