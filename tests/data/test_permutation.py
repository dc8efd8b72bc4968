"""The permutation is a bijection and looks random: thresholds are those that numpy's own shuffle meets."""

import numpy as np
import pytest

from llmtrain.data.permutation import Permutation, derive_key, splitmix64

# |z| of a statistic of a true shuffle stays below 4.5 in all but some ten cases of a million.
MAX_Z = 4.5


@pytest.mark.parametrize("size", [*range(1, 130), 255, 256, 257, 1000, 1023, 1024, 1025, 65_537, 1_000_003])
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


@pytest.mark.parametrize("size", [100_000, 1 << 17, 200_003])
@pytest.mark.parametrize("key", [0, 1, 12345])
def test_positions_differences_and_low_bits_look_random(size: int, key: int) -> None:
    image = Permutation(size, key)(np.arange(size))
    head = image[: size // 4]
    differences = (np.diff(image) % size) * 64 // size
    cells = {
        "where the first quarter goes": z_of_cells(head * 64 // size, 64),
        "differences of neighbours": z_of_cells(differences, 64),
        "low bits of the first quarter": z_of_cells(head & 63, 64),
        "pairs of low bits": z_of_cells((image[:-1:2] & 7) * 8 + (image[1::2] & 7), 64),
    }
    # Without replacement the cells of a quarter vary less than multinomial ones, so only large values are suspicious.
    assert {name: z for name, z in cells.items() if z > MAX_Z} == {}
    correlation = float(np.corrcoef(np.arange(size), image)[0, 1]) * float(np.sqrt(size))
    assert abs(correlation) < MAX_Z
    successors = float(np.corrcoef(image[:-1], image[1:])[0, 1]) * float(np.sqrt(size))
    assert abs(successors) < MAX_Z


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
