from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from llmtrain.config.data import DataConfig
from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.data.validation import read_validation_rows, share_validation
from llmtrain.errors import DataError
from llmtrain.shards.reader import ShardedTokens
from tests.helpers.shards import BOS_ID, make_documents, write_split

T = 16
PLAIN = DataConfig(folder=Path("x"))
MASKED = DataConfig(folder=Path("x"), mask_across_documents=True, reset_position_ids=True)


@pytest.fixture
def data(tmp_path: Path) -> dict[str, ShardedTokens]:
    return {
        "web": write_split(tmp_path / "web", make_documents(30)),
        "code": write_split(tmp_path / "code", make_documents(4, first=60), source="code"),
    }


def test_all_tokens_of_a_short_stream_are_validated_on(data: dict[str, ShardedTokens]) -> None:
    rows = read_validation_rows(data, PLAIN, T, per_source=10**6)
    for name, shards in data.items():
        stream = shards.read(0, shards.token_count)
        kept = rows[name].labels_NT != IGNORE_INDEX
        assert rows[name].labels_NT[kept].tolist() == stream[1:].tolist()
        assert rows[name].input_ids_NT[kept].tolist() == stream[:-1].tolist()


def test_a_long_stream_gives_the_same_spread_windows_every_time(data: dict[str, ShardedTokens]) -> None:
    first, again = (read_validation_rows(data, PLAIN, T, per_source=10)["web"] for _ in range(2))
    assert len(first.input_ids_NT) == 10
    assert np.array_equal(first.input_ids_NT, again.input_ids_NT)
    head = data["web"].read(0, 10 * T)
    assert first.input_ids_NT.reshape(-1).tolist() != head.tolist()


@pytest.mark.parametrize("config", [PLAIN, MASKED], ids=["plain", "masked"])
@pytest.mark.parametrize(("world_size", "micro_batch_size"), [(1, 4), (2, 3), (4, 2), (3, 5)])
def test_ranks_share_every_window_once_in_equal_batches(
    data: dict[str, ShardedTokens], config: DataConfig, world_size: int, micro_batch_size: int
) -> None:
    rows = read_validation_rows(data, config, T, per_source=20)
    shares = [share_validation(rows, config, micro_batch_size, world_size, rank) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    seen: Counter[tuple[int, ...]] = Counter()
    for share in shares:
        for batch in share:
            assert batch.input_ids_BT.shape == (micro_batch_size, T)
            for source, inputs, labels in zip(batch.source_ids_B, batch.input_ids_BT, batch.labels_BT, strict=True):
                if (labels != IGNORE_INDEX).any():
                    seen[(int(source), *inputs.tolist())] += 1
    expected: Counter[tuple[int, ...]] = Counter()
    for source_id, source in enumerate(rows.values()):
        expected.update((source_id, *inputs) for inputs in source.input_ids_NT.tolist())
    assert seen == expected


def test_validation_masks_as_training_does(data: dict[str, ShardedTokens]) -> None:
    rows = read_validation_rows(data, MASKED, T, per_source=100)
    assert all((source.labels_NT != BOS_ID).all() for source in rows.values())
    batch = share_validation(rows, MASKED, 4, 1, 0)[0]
    assert batch.document_ids_BT is not None
    assert batch.position_ids_BT is not None
    assert torch.equal(batch.position_ids_BT[:, 0], torch.zeros(4, dtype=torch.int64))


def test_a_source_without_text_to_validate_on_is_refused(tmp_path: Path) -> None:
    tiny = write_split(tmp_path / "tiny", [np.array([1])])
    with pytest.raises(DataError, match="1 tokens are too few to validate on"):
        read_validation_rows({"tiny": tiny}, PLAIN, T, per_source=4)
