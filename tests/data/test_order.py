from collections import Counter

import numpy as np
import pytest

from llmtrain.data.apportion import apportion
from llmtrain.data.mixture import WEIGHT_SCALE, Mixture, Stage
from llmtrain.data.order import BLOCK_SAMPLES, SHUFFLED_SAMPLES, SampleOrder


def make_mixture(shares: list[float], windows: list[int] | None = None) -> Mixture:
    total = sum(shares)
    weights = tuple(max(1, round(share / total * WEIGHT_SCALE)) for share in shares)
    names = tuple(f"source{i}" for i in range(len(shares)))
    return Mixture(names, tuple(windows or [1000] * len(shares)), (Stage(0, weights),))


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
def test_every_source_is_near_its_share_at_every_sample(shares: list[float]) -> None:
    mixture = make_mixture(shares)
    weights = mixture.stages[0].weights
    order, total = SampleOrder(mixture, seed=1), sum(weights)
    for block in (0, 1, 7, 10**3, 10**6, 10**9, 10**12):
        first = block * BLOCK_SAMPLES
        drawn = order.locate(first, BLOCK_SAMPLES).sources
        before = apportion(first, 0, weights)[0]
        counts = before + np.cumsum(drawn[:, None] == np.arange(len(weights)), axis=0)
        # In whole numbers: floats would hide a deviation of some sequences among a trillion.
        for offset in (0, 1, 31, 63, 64, 200, 447, 511):
            row = counts[offset].tolist()
            worst = max(
                abs(count * total - (first + offset + 1) * weight) for count, weight in zip(row, weights, strict=True)
            )
            assert worst < (4 if (offset + 1) % SHUFFLED_SAMPLES == 0 else 20) * total


def test_sources_are_counted_as_they_are_drawn_up_to_any_sample() -> None:
    mixture = make_mixture([0.5, 0.3, 0.2])
    mixture = Mixture(mixture.names, mixture.windows, (*mixture.stages, Stage(700, (1, 0, 3)), Stage(1500, (0, 1, 0))))
    order = SampleOrder(mixture, seed=1)
    for samples in (1, 511, 512, 699, 700, 701, 1499, 1500, 3000):
        drawn = np.bincount(order.locate(0, samples).sources, minlength=3)
        assert order.count_sources(samples).tolist() == drawn.tolist()


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
    alone = SampleOrder(Mixture(("a",), (500,), (Stage(0, (WEIGHT_SCALE,)),)), seed=1).locate(0, 2048)
    both = Mixture(("a", "b"), (500, 70), (Stage(0, (1, 1)),))
    together = SampleOrder(both, seed=1).locate(0, 2048)
    mine = together.sources == 0
    first_epoch = Counter(together.windows[mine & (together.epochs == 0)].tolist())
    assert first_epoch == Counter(alone.windows[alone.epochs == 0].tolist())


STAGES = (Stage(0, (3, 1, 0)), Stage(1000, (0, 1, 2)), Stage(1037, (1, 1, 1)), Stage(5000, (1, 0, 0)))


def test_a_stage_has_its_shares_and_goes_on_where_the_sources_were() -> None:
    mixture = Mixture(("web", "code", "wiki"), (400, 300, 200), STAGES)
    samples = SampleOrder(mixture, seed=4).locate(0, 8000)
    ends = [*(stage.first_sample for stage in STAGES[1:]), 8000]
    for stage, end in zip(STAGES, ends, strict=True):
        counts = np.bincount(samples.sources[stage.first_sample : end], minlength=3)
        expected = np.array(stage.shares) * (end - stage.first_sample)
        assert np.abs(counts - expected).max() < 20
    for source, windows in enumerate(mixture.windows):
        mine = samples.sources == source
        drawn = sorted(zip(samples.epochs[mine].tolist(), samples.windows[mine].tolist(), strict=True))
        # Every window once per epoch, whatever stage reads it.
        assert len(set(drawn)) == len(drawn)
        whole = range(max(epoch for epoch, _ in drawn))
        assert [pair for pair in drawn if pair[0] in whole] == [(e, w) for e in whole for w in range(windows)]


def test_a_stage_that_is_added_leaves_the_past_as_it_was() -> None:
    names, windows = ("web", "code", "wiki"), (400, 300, 200)
    for stages in range(1, len(STAGES)):
        short = SampleOrder(Mixture(names, windows, STAGES[:stages]), seed=4)
        longer = SampleOrder(Mixture(names, windows, STAGES[: stages + 1]), seed=4)
        end = STAGES[stages].first_sample
        for column in ("sources", "epochs", "windows"):
            assert np.array_equal(getattr(short.locate(0, end), column), getattr(longer.locate(0, end), column))


def test_a_range_over_stages_is_a_slice_of_the_whole() -> None:
    mixture = Mixture(("web", "code", "wiki"), (400, 300, 200), STAGES)
    whole = SampleOrder(mixture, seed=4).locate(0, 6000)
    for start, count in ((990, 100), (1036, 2), (1000, 37), (511, 4600)):
        part = SampleOrder(mixture, seed=4).locate(start, count)
        assert np.array_equal(part.windows, whole.windows[start : start + count])
        assert np.array_equal(part.sources, whole.sources[start : start + count])
