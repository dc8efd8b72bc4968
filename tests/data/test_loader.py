import threading
from pathlib import Path

import pytest
import torch

from llmtrain.config.root import Config
from llmtrain.data.loader import Batch, TrainingLoader, build_loader
from llmtrain.data.order import Samples
from llmtrain.errors import DataError
from llmtrain.plan.build import build_plan
from llmtrain.shards.packing import build_pack_indexes
from llmtrain.shards.reader import ShardedTokens
from tests.helpers.configs import load_tiny_config
from tests.helpers.shards import make_documents, write_split

Data = dict[str, ShardedTokens]


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return {
        "web": write_split(tmp_path / "web", make_documents(60)),
        "code": write_split(tmp_path / "code", make_documents(60, first=60), source="code"),
    }


def open_loader(config: Config, data: Data, world_size: int = 1, rank: int = 0) -> TrainingLoader:
    return build_loader(config, build_plan(config, world_size, 300), data, rank)


def stack(batches: list[Batch]) -> torch.Tensor:
    return torch.cat([batch.input_ids_BT for batch in batches])


@pytest.mark.parametrize(("world_size", "micro_batch_size"), [(1, 8), (1, 1), (2, 4), (2, 2), (4, 1), (4, 2)])
def test_a_step_reads_the_same_sequences_on_any_layout(
    data: Data, tmp_path: Path, world_size: int, micro_batch_size: int
) -> None:
    whole = open_loader(load_tiny_config(tmp_path, "batch.micro_batch_size=8"), data)
    config = load_tiny_config(tmp_path, f"batch.micro_batch_size={micro_batch_size}")
    loaders = [open_loader(config, data, world_size, rank) for rank in range(world_size)]
    for step in (0, 1, 5):
        per_rank = [loader.load_step(step) for loader in loaders]
        assert {len(batches) for batches in per_rank} == {8 // (world_size * micro_batch_size)}
        rows = [batch for micro in zip(*per_rank, strict=True) for batch in micro]
        assert torch.equal(stack(rows), stack(whole.load_step(step)))
        sources = torch.cat([batch.source_ids_B for batch in rows])
        assert torch.equal(sources, torch.cat([batch.source_ids_B for batch in whole.load_step(step)]))
    for loader in (*loaders, whole):
        loader.close()


@pytest.mark.parametrize("world_size", [1, 2, 8, 16, 32, 64])
def test_up_to_64_ranks_share_the_same_sequences_in_the_same_order(data: Data, tmp_path: Path, world_size: int) -> None:
    config = load_tiny_config(tmp_path, "batch.global_batch_size=64", "batch.micro_batch_size=1")
    whole = stack_step(open_loader(config, data), 3)
    loaders = [open_loader(config, data, world_size, rank) for rank in range(world_size)]
    per_rank = [loader.load_step(3) for loader in loaders]
    assert torch.equal(stack([batch for micro in zip(*per_rank, strict=True) for batch in micro]), whole)
    for loader in loaders:
        loader.close()


def stack_step(loader: TrainingLoader, step: int) -> torch.Tensor:
    rows = stack(loader.load_step(step))
    loader.close()
    return rows


def test_any_step_can_be_asked_for_in_any_order(data: Data, tmp_path: Path) -> None:
    config = load_tiny_config(tmp_path)
    in_order = open_loader(config, data)
    expected = [stack(in_order.load_step(step)) for step in range(8)]
    jumping = open_loader(config, data)
    for step in (6, 0, 1, 7, 3, 3):
        assert torch.equal(stack(jumping.load_step(step)), expected[step])
    in_order.close()
    jumping.close()


def test_labels_are_inputs_shifted_by_one(data: Data, tmp_path: Path) -> None:
    loader = open_loader(load_tiny_config(tmp_path), data)
    for batch in loader.load_step(0):
        assert torch.equal(batch.labels_BT[:, :-1], batch.input_ids_BT[:, 1:])
        assert batch.position_ids_BT is None
        assert batch.document_ids_BT is None
    loader.close()


def test_masking_and_reset_bring_documents_and_positions(data: Data, tmp_path: Path) -> None:
    for shards in data.values():
        build_pack_indexes(shards, 16)
    overrides = ["data.packing=best_fit", "data.mask_across_documents=true", "data.reset_position_ids=true"]
    loader = open_loader(load_tiny_config(tmp_path, *overrides), data)
    batch = loader.load_step(0)[0]
    assert batch.document_ids_BT is not None
    assert batch.position_ids_BT is not None
    assert batch.position_ids_BT.max() < 16
    loader.close()


def test_an_error_of_the_thread_reaches_the_loop(data: Data, tmp_path: Path) -> None:
    loader = open_loader(load_tiny_config(tmp_path), data)
    for shards in data.values():
        for path in shards.folder.glob("*.tokens"):
            path.write_bytes(b"gone")
    with pytest.raises(DataError, match="is not a token shard"):
        loader.load_step(0)
    loader.close()


def test_waiting_is_counted(data: Data, tmp_path: Path) -> None:
    loader = open_loader(load_tiny_config(tmp_path), data)
    assert loader.wait_seconds == 0
    loader.load_step(0)
    assert loader.wait_seconds > 0
    loader.close()


def test_steps_are_read_ahead_and_never_beyond_the_run(data: Data, tmp_path: Path) -> None:
    loader = open_loader(load_tiny_config(tmp_path, "training.train_steps=4"), data)
    located: list[int] = []
    locate = loader.order.locate

    def record(start: int, count: int) -> Samples:
        located.append(start // count)
        return locate(start, count)

    loader.order.locate = record  # type: ignore[method-assign]
    loader.load_step(0)
    loader._thread.submit(bool).result()  # the thread works in order: what was asked for before is done now
    assert located == [0, 1, 2]
    for step in (1, 2, 3):
        loader.load_step(step)
    loader._thread.submit(bool).result()
    assert located == [0, 1, 2, 3]
    loader.close()


def test_closing_ends_the_thread(data: Data, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    loader = open_loader(load_tiny_config(tmp_path), data)
    loader.load_step(0)
    assert len(set(threading.enumerate()) - before) == 1
    loader.close()
    assert set(threading.enumerate()) <= before


def test_a_longer_run_reads_the_same_steps(data: Data, tmp_path: Path) -> None:
    short = open_loader(load_tiny_config(tmp_path), data)
    long = open_loader(load_tiny_config(tmp_path, "training.train_steps=500"), data)
    for step in range(10):
        assert torch.equal(stack(short.load_step(step)), stack(long.load_step(step)))
    short.close()
    long.close()


def test_a_batch_of_two_steps_is_both_their_batches(data: Data, tmp_path: Path) -> None:
    small = open_loader(load_tiny_config(tmp_path), data)
    large = open_loader(load_tiny_config(tmp_path, "batch.global_batch_size=16", "training.train_steps=5"), data)
    for step in range(5):
        both = torch.cat([stack(small.load_step(2 * step)), stack(small.load_step(2 * step + 1))])
        assert torch.equal(stack(large.load_step(step)), both)
    small.close()
    large.close()


def test_the_order_follows_the_seed(data: Data, tmp_path: Path) -> None:
    first = open_loader(load_tiny_config(tmp_path), data)
    second = open_loader(load_tiny_config(tmp_path, "run.seed=8"), data)
    assert not torch.equal(stack(first.load_step(0)), stack(second.load_step(0)))
    first.close()
    second.close()
