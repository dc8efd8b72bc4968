"""The permutation is a bijection and looks random: thresholds are those that numpy's own shuffle meets."""

import numpy as np
import pytest

from llmtrain.data.permutation import Permutation, derive_key, splitmix64

# |z| of a statistic of a true shuffle stays below 4.5 in all but some ten cases of a million.
MAX_Z = 4.5


def test_every_index_is_hit_exactly_once_for_every_small_size() -> None:
    wrong = [
        size
        for size in range(1, 1025)
        if not np.array_equal(np.sort(Permutation(size, key=size)(np.arange(size))), np.arange(size))
    ]
    assert wrong == []


RANDOM_SIZES = np.random.default_rng(5).integers(1025, 1 << 20, 6).tolist()


@pytest.mark.parametrize("size", [1025, 65_536, 65_537, (1 << 20) - 1, 1 << 20, *RANDOM_SIZES])
def test_every_index_is_hit_exactly_once(size: int) -> None:
    image = Permutation(size, key=size)(np.arange(size))
    assert np.array_equal(np.sort(image), np.arange(size))


@pytest.mark.parametrize("size", [3 * 2**30 + 7, 2**40, 2**40 + 1, 10**12])
def test_huge_domains_cost_nothing_and_stay_in_range(size: int) -> None:
    indices = np.random.default_rng(0).integers(0, size, 10_000)
    image = Permutation(size, key=1)(indices)
    assert image.min() >= 0
    assert image.max() < size
    assert len(np.unique(image)) == len(np.unique(indices))


def z_of_cells(cells: np.ndarray, count: int) -> float:
    """Chi-square of equal cells, as a z score."""
    observed = np.bincount(cells, minlength=count)
    expected = len(cells) / count
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    return (chi_square - (count - 1)) / float(np.sqrt(2 * (count - 1)))


def compute_statistics(image: np.ndarray) -> dict[str, float]:
    """What a shuffle must not show, as z scores.

    Without replacement the cells of a part vary less than multinomial ones, so only large values are suspicious.
    """
    size = len(image)
    head, strided = image[: size // 4], image[::7]
    differences = (np.diff(image) % size) * 64 // size
    pieces = image[: size - size % 64].reshape(64, -1)  # runs of neighbours: each must be spread over all strata
    return {
        "where the first quarter goes": z_of_cells(head * 64 // size, 64),
        "where every seventh goes": z_of_cells(strided * 64 // size, 64),
        "differences of neighbours": z_of_cells(differences, 64),
        "low bits of the first quarter": z_of_cells(head & 63, 64),
        "low bits of every second": z_of_cells(image[::2] & 63, 64),
        "pairs of low bits": z_of_cells((image[:-1:2] & 7) * 8 + (image[1::2] & 7), 64),
        "strata of the worst run": max(z_of_cells(piece * 16 // size, 16) for piece in pieces) - MAX_OF_RUNS,
        "correlation with the index": abs(correlate(np.arange(size), image)),
        "correlation of neighbours": abs(correlate(image[:-1], image[1:])),
        "correlation at lag 64": abs(correlate(image[:-64], image[64:])),
    }


# The largest of 64 chi-squares of 15 degrees of freedom, as a z score, is some 2 to 3 on average.
MAX_OF_RUNS = 2.0


def correlate(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation as a z score."""
    return float(np.corrcoef(first, second)[0, 1]) * float(np.sqrt(len(first)))


SIZES = [4099, 100_000, 1 << 17, 200_003]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", [0, 1, 12345, (1 << 64) - 1])
def test_an_order_looks_random(size: int, key: int) -> None:
    statistics = compute_statistics(Permutation(size, key)(np.arange(size)))
    assert {name: z for name, z in statistics.items() if z > MAX_Z} == {}


@pytest.mark.parametrize("size", SIZES)
def test_a_true_shuffle_passes_and_a_poor_one_fails_the_same_statistics(size: int) -> None:
    shuffled = compute_statistics(np.random.default_rng(0).permutation(size))
    assert {name: z for name, z in shuffled.items() if z > MAX_Z} == {}
    multiplied = compute_statistics(np.arange(size) * 48_271 % size)
    assert max(multiplied.values()) > 10 * MAX_Z


@pytest.mark.parametrize("key", range(4))
def test_two_rounds_would_be_noticed(key: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmtrain.data.permutation.ROUNDS", 2)
    statistics = compute_statistics(Permutation(1 << 17, key)(np.arange(1 << 17)))
    assert max(statistics.values()) > 2 * MAX_Z


def test_all_120_orders_of_five_windows_are_equally_likely() -> None:
    orders = np.array([Permutation(5, derive_key(3, key))(np.arange(5)) for key in range(5000)])
    _, counts = np.unique(orders @ 5 ** np.arange(5), return_counts=True)
    assert len(counts) == 120
    assert z_of_cells(np.repeat(np.arange(120), counts), 120) < MAX_Z


@pytest.mark.parametrize("size", [8, 12, 17, 64])
def test_neighbours_of_a_short_order_are_independent(size: int) -> None:
    heads = np.array([Permutation(size, derive_key(4, key))(np.arange(2)) for key in range(2000)])
    assert z_of_cells(heads[:, 0], size) < MAX_Z
    assert z_of_cells((heads[:, 1] - heads[:, 0]) % size - 1, size - 1) < MAX_Z


def test_other_keys_give_other_orders() -> None:
    size = 10_000
    first, second = Permutation(size, 1)(np.arange(size)), Permutation(size, 2)(np.arange(size))
    # The number of fixed points between two random orders is Poisson distributed with mean 1.
    assert (first == second).sum() < 10
    assert np.array_equal(first, Permutation(size, 1)(np.arange(size)))


def test_every_part_of_a_key_matters() -> None:
    keys = {derive_key(*parts) for parts in [(1, 2, 3), (1, 3, 2), (2, 1, 3), (1, 2), (1, 2, 4), (-1, 2, 3)]}
    assert len(keys) == 6


def test_splitmix_gives_its_published_sequence() -> None:
    # The reference generator seeded with 1234567 (Vigna's splitmix64.c), whose state advances by the golden ratio.
    golden = np.uint64(0x9E3779B97F4A7C15)
    states = np.uint64(1234567) + golden * np.arange(3, dtype=np.uint64)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]
