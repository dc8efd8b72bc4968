from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.deduplication.clusters import Clusters

SIZE = 40
EDGES = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)), max_size=80)


def merge_sets(edges: list[tuple[int, int]]) -> list[int]:
    """The least number of each cluster, by renaming every member."""
    names = list(range(SIZE))
    for a, b in edges:
        low, high = sorted((names[a], names[b]))
        names = [low if name == high else name for name in names]
    return names


def cluster(edges: list[tuple[int, int]], batch: int) -> list[int]:
    with TemporaryDirectory() as folder:
        clusters = Clusters(Path(folder) / "forest.npy", SIZE)
        for start in range(0, len(edges), batch):
            first, second = np.array(edges[start : start + batch], np.int64).T
            clusters.add(first, second)
        return [int(root) for root in clusters.find(np.arange(SIZE))]


@given(EDGES, st.integers(1, 80), st.randoms())
@settings(deadline=None, max_examples=150)
def test_clusters_are_those_of_merging_sets_in_any_order_and_batch(edges, batch, random) -> None:  # type: ignore[no-untyped-def]
    expected = merge_sets(edges)
    assert cluster(edges, batch) == expected
    random.shuffle(edges)
    assert cluster(edges, batch) == expected


def test_a_long_chain_is_one_cluster(tmp_path: Path) -> None:
    size = 100_000
    clusters = Clusters(tmp_path / "forest.npy", size)
    order = np.random.default_rng(0).permutation(size - 1)
    clusters.add(order, order + 1)
    assert not clusters.find(np.arange(size)).any()
