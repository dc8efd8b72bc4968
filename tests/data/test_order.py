from collections import Counter

import numpy as np
import pytest

from llmtrain.data.mixture import WEIGHT_SCALE, Mixture
from llmtrain.data.order import BLOCK_SAMPLES, SampleOrder, apportion


def make_mixture(shares: list[float], windows: list[int] | None = None) -> Mixture:
    total = sum(shares)
    weights = tuple(max(1, round(share / total * WEIGHT_SCALE)) for share in shares)
    names = tuple(f"source{i}" for i in range(len(shares)))
    return Mixture(names, weights, tuple(windows or [1000] * len(shares)))


def draw_shares(count: int, seed: int) -> list[float]:
    shares: list[float] = (np.random.default_rng(seed).pareto(1.0, count) + 1e-3).tolist()
    return shares


SKEWED = {
    "one in a million": [1.0, 1e-6],
    "powers of two": [2.0**-i for i in range(40)],
    "one giant and 299 dwarfs": [1.0, *[1e-9] * 299],
    "alternating": [1.0, 1e-5] * 100,
    "thirds": [1.0] * 3,
}
DRAWN = {
    f"{count} drawn with seed {seed}": draw_shares(count, seed) for count in (1, 2, 3, 20, 100, 300) for seed in (0, 1)
}


@pytest.mark.parametrize("shares", (SKEWED | DRAWN).values(), ids=(SKEWED | DRAWN).keys())
def test_every_source_is_within_4_sequences_of_its_share_at_every_block(shares: list[float]) -> None:
    weights = make_mixture(shares).weights
    total, before = sum(weights), [0] * len(weights)
    for block in (*range(1, 60), 10**3, 10**3 + 1, 10**6, 10**9, 10**9 + 1, 10**12):
        samples = block * BLOCK_SAMPLES
        counts = apportion(samples, weights)
        assert sum(counts) == samples
        # In whole numbers: floats would hide a deviation of some sequences among a trillion.
        worst = max(abs(count * total - samples * weight) for count, weight in zip(counts, weights, strict=True))
        assert worst < 4 * total
        assert all(now >= then for now, then in zip(counts, before, strict=True))
        before = counts


@pytest.mark.parametrize("start", [0, 10**9 // BLOCK_SAMPLES, 10**12 // BLOCK_SAMPLES])
def test_a_block_holds_exactly_what_is_apportioned(start: int) -> None:
    mixture = make_mixture(draw_shares(20, 3))
    first, last = (apportion(block * BLOCK_SAMPLES, mixture.weights) for block in (start, start + 3))
    drawn = SampleOrder(mixture, seed=1).locate(start * BLOCK_SAMPLES, 3 * BLOCK_SAMPLES).sources
    expected = [after - before for before, after in zip(first, last, strict=True)]
    assert np.bincount(drawn, minlength=20).tolist() == expected


def test_the_order_inside_a_block_has_no_period() -> None:
    order = SampleOrder(make_mixture([0.5, 0.3, 0.2]), seed=1)
    is_first = (order.locate(0, 200 * BLOCK_SAMPLES).sources == 0).astype(float)
    is_first -= is_first.mean()
    for lag in (1, 2, 3, 4, 5, 8, 10, 16, 32):
        correlation = float((is_first[:-lag] * is_first[lag:]).mean() / is_first.var())
        assert abs(correlation) < 0.02, lag


def test_every_window_comes_once_in_every_epoch() -> None:
    order = SampleOrder(make_mixture([0.6, 0.4], [700, 333]), seed=3)
    samples = order.locate(0, 20 * BLOCK_SAMPLES)
    for source, windows in enumerate((700, 333)):
        mine = samples.sources == source
        for epoch in range(int(samples.epochs[mine].max())):
            drawn = Counter(samples.windows[mine & (samples.epochs == epoch)].tolist())
            assert drawn == Counter(range(windows))


def test_epochs_have_different_orders() -> None:
    order = SampleOrder(make_mixture([1.0], [512]), seed=3)
    first, second = order.locate(0, 512).windows, order.locate(512, 512).windows
    assert (first == second).sum() < 12


def test_any_range_is_a_slice_of_the_whole() -> None:
    mixture = make_mixture([0.7, 0.2, 0.1], [300, 50, 20])
    whole = SampleOrder(mixture, seed=5).locate(0, 5000)
    draw = np.random.default_rng(0)
    for _ in range(50):
        start, length = int(draw.integers(0, 4000)), int(draw.integers(1, 1000))
        part = SampleOrder(mixture, seed=5).locate(start, length)
        for name in ("sources", "epochs", "windows"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)[start : start + length])


def test_a_run_can_be_continued_at_a_trillion_samples() -> None:
    order = SampleOrder(make_mixture([0.7, 0.3], [10**9, 10**7]), seed=5)
    samples = order.locate(10**12 + 17, 1000)
    assert len(samples.windows) == 1000
    assert samples.epochs[samples.sources == 1].min() > 1000
    assert samples.windows.min() >= 0


def test_no_window_comes_twice_before_its_epoch_is_over() -> None:
    mixture = make_mixture([0.9, 0.1], [5000, 3])
    samples = SampleOrder(mixture, seed=2).locate(0, 12 * BLOCK_SAMPLES)
    seen = set(zip(samples.sources.tolist(), samples.epochs.tolist(), samples.windows.tolist(), strict=True))
    assert len(seen) == 12 * BLOCK_SAMPLES
    for source in (0, 1):
        epochs = samples.epochs[samples.sources == source]
        # Two epochs may be mixed within a block, whose samples are shuffled among themselves, never further.
        assert np.bincount(epochs)[:-1].tolist() == [mixture.windows[source]] * int(epochs.max())


def test_seeds_give_different_orders() -> None:
    mixture = make_mixture([0.5, 0.5])
    first, second = (SampleOrder(mixture, seed).locate(0, 2000).windows for seed in (1, 2))
    assert (first == second).mean() < 0.05


def test_a_source_keeps_its_own_order_when_another_joins_the_mixture() -> None:
    alone = SampleOrder(Mixture(("a",), (WEIGHT_SCALE,), (500,)), seed=1).locate(0, 2048)
    both = Mixture(("a", "b"), (WEIGHT_SCALE // 2, WEIGHT_SCALE // 2), (500, 70))
    together = SampleOrder(both, seed=1).locate(0, 2048)
    mine = together.sources == 0
    first_epoch = Counter(together.windows[mine & (together.epochs == 0)].tolist())
    assert first_epoch == Counter(alone.windows[alone.epochs == 0].tolist())
