import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llmtrain.data.apportion import apportion

WEIGHTS = st.lists(st.integers(0, 1 << 36), min_size=1, max_size=40).filter(any).map(tuple)


@given(weights=WEIGHTS, first=st.integers(0, 10**13), steps=st.integers(0, 600))
def test_counts_are_exact_add_up_and_each_sample_goes_to_one_source(
    weights: tuple[int, ...], first: int, steps: int
) -> None:
    counts = apportion(first, steps, weights)
    total = sum(weights)
    for row in (0, steps):
        assert sum(counts[row].tolist()) == first + row
        for count, weight in zip(counts[row].tolist(), weights, strict=True):
            assert abs(count * total - (first + row) * weight) < 4 * total
            assert count == 0 or weight
    increments = np.diff(counts, axis=0)
    assert ((increments == 0) | (increments == 1)).all()


@given(weights=WEIGHTS, first=st.integers(0, 10**13))
def test_counts_do_not_depend_on_where_they_are_begun(weights: tuple[int, ...], first: int) -> None:
    assert (apportion(first, 10, weights)[3:] == apportion(first + 3, 7, weights)).all()
