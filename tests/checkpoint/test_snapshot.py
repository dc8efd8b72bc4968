from typing import Any

import pytest
import torch
from torch import nn

from llmtrain.checkpoint import fragments
from llmtrain.checkpoint.digest import combine_digests
from llmtrain.checkpoint.fragments import Fragment
from llmtrain.checkpoint.snapshot import HostBuffers, TrainingState, take_snapshot
from tests.checkpoint.engines import fake_engine


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model after one step of AdamW, with ranks left out."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    engine = fake_engine(model, optimizer)
    monkeypatch.setattr(fragments, "owned_fragments", fragments.held_fragments)
    monkeypatch.setattr(fragments, "describe_layout", lambda engine: {"world_size": 1})
    return engine


def digest_of(written: list[Fragment]) -> int:
    return combine_digests(fragment.compute_digest() for fragment in written)


def test_a_copied_snapshot_does_not_see_the_next_step(engine: Any) -> None:
    progress = {"sums": [1.0, 2.0]}
    snapshot = take_snapshot(engine, TrainingState(1, 8, progress=progress), HostBuffers())
    views = take_snapshot(engine, TrainingState(1, 8, progress=progress))
    before = digest_of(snapshot.fragments)
    assert before == digest_of(views.fragments)
    moments = [fragment.states["exp_avg"].clone() for fragment in snapshot.fragments]
    engine.optimizer.step()
    progress["sums"][0] += 1
    assert digest_of(views.fragments) != before
    assert digest_of(snapshot.fragments) == before
    assert all(
        torch.equal(fragment.states["exp_avg"], moment)
        for fragment, moment in zip(snapshot.fragments, moments, strict=True)
    )
    assert snapshot.state.progress == {"sums": [1.0, 2.0]}
    assert snapshot.optimizer_steps == {1}
    assert snapshot.shapes == {"weight": (2, 3), "bias": (2,)}


def test_buffers_are_used_again_by_the_next_save(engine: Any) -> None:
    buffers = HostBuffers()
    first = take_snapshot(engine, TrainingState(1, 8), buffers).fragments
    addresses = [flat.data_ptr() for fragment in first for flat in fragment.states.values()]
    engine.optimizer.step()
    second = take_snapshot(engine, TrainingState(2, 16), buffers).fragments
    assert [flat.data_ptr() for fragment in second for flat in fragment.states.values()] == addresses
    assert digest_of(second) == digest_of(list(fragments.held_fragments(engine)))
    assert len(set(addresses)) == 2 * 3


def test_a_fragment_of_another_size_gets_another_buffer() -> None:
    buffers = HostBuffers()

    def fragment(numel: int) -> Fragment:
        placement: Any = None
        return Fragment(placement, (numel,), 0, {"weights": torch.arange(numel, dtype=torch.float32)})

    (small,) = buffers.copy([fragment(3)])
    (large,) = buffers.copy([fragment(5)])
    assert small.states["weights"].tolist() == [0, 1, 2]
    assert large.states["weights"].tolist() == [0, 1, 2, 3, 4]
