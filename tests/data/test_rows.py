from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from llmtrain.config.data import DataConfig
from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.data.rows import PackedRows, StreamRows, open_rows
from llmtrain.errors import DataError
from llmtrain.shards.packing import build_pack_indexes, open_pack_index
from llmtrain.shards.reader import ShardedTokens
from tests.helpers.shards import BOS_ID, EOS_ID, make_documents, write_split

T = 32


@pytest.fixture
def shards(tmp_path: Path) -> ShardedTokens:
    return write_split(tmp_path / "train", make_documents(80), shard_tokens=700)


def test_stream_windows_are_consecutive_and_labels_are_the_next_tokens(shards: ShardedTokens) -> None:
    reader = StreamRows(shards, T, mask_across_documents=False)
    stream = shards.read(0, shards.token_count)
    assert reader.num_windows == (len(stream) - 1) // T
    windows = np.array([0, 7, reader.num_windows - 1, 3])
    rows = reader.read(windows)
    for row, window in enumerate(windows.tolist()):
        assert rows.input_ids_NT[row].tolist() == stream[window * T : window * T + T].tolist()
        assert rows.labels_NT[row].tolist() == stream[window * T + 1 : window * T + T + 1].tolist()


def test_masked_rows_never_ask_for_the_first_token_of_the_next_document(shards: ShardedTokens) -> None:
    windows = np.arange(20)
    plain, masked = (StreamRows(shards, T, mask).read(windows) for mask in (False, True))
    assert (plain.labels_NT == BOS_ID).any()
    assert np.array_equal(masked.labels_NT, np.where(plain.labels_NT == BOS_ID, IGNORE_INDEX, plain.labels_NT))
    changes = np.diff(masked.document_ids_NT, axis=1)
    assert np.array_equal(changes, (masked.input_ids_NT[:, 1:] == BOS_ID).astype(int))


def test_positions_start_anew_in_each_document(shards: ShardedTokens) -> None:
    rows = StreamRows(shards, T, mask_across_documents=True).read(np.arange(20))
    for ids, positions in zip(rows.document_ids_NT.tolist(), rows.compute_position_ids().tolist(), strict=True):
        expected: list[int] = []
        last = None
        for document in ids:
            expected.append(0 if document != last else expected[-1] + 1)
            last = document
        assert positions == expected


def test_packed_rows_hold_every_document_once_and_ask_only_within_it(shards: ShardedTokens) -> None:
    build_pack_indexes(shards, T)
    reader = PackedRows(shards, T)
    rows = reader.read(np.arange(reader.num_windows))
    stream = shards.read(0, shards.token_count)
    real = (rows.labels_NT != IGNORE_INDEX) | (rows.input_ids_NT != EOS_ID)
    pairs = sorted(zip(rows.input_ids_NT[rows.labels_NT != IGNORE_INDEX].tolist(),
                       rows.labels_NT[rows.labels_NT != IGNORE_INDEX].tolist(), strict=True))  # fmt: skip
    expected = sorted((a, b) for a, b in zip(stream[:-1].tolist(), stream[1:].tolist(), strict=True) if b != BOS_ID)
    assert pairs == expected
    assert real.sum() == len(stream) - np.count_nonzero(stream == EOS_ID)
    assert (rows.labels_NT[rows.input_ids_NT == EOS_ID] == IGNORE_INDEX).all()


@pytest.mark.parametrize("length", [16, 32, 500])
def test_packed_rows_agree_with_a_naive_reference(shards: ShardedTokens, length: int) -> None:
    build_pack_indexes(shards, length)
    reader = PackedRows(shards, length)
    rows = reader.read(np.arange(reader.num_windows))
    row = 0
    for shard, base in enumerate(shards.shard_starts[:-1].tolist()):
        ends = shards.document_ends(shard).tolist()
        index = open_pack_index(shards, shard, length)
        for first, last in pairwise(index.row_offsets.tolist()):
            inputs, labels, documents = [], [], []
            for document, segment in enumerate(range(first, last)):
                for place in range(int(index.starts[segment]), int(index.starts[segment] + index.lengths[segment])):
                    inputs.append(int(shards.read(base + place, 1)[0]))
                    labels.append(IGNORE_INDEX if place + 1 in ends else int(shards.read(base + place + 1, 1)[0]))
                    documents.append(document)
            padding = length - len(inputs)
            assert rows.input_ids_NT[row].tolist() == inputs + [EOS_ID] * padding
            assert rows.labels_NT[row].tolist() == labels + [IGNORE_INDEX] * padding
            assert rows.document_ids_NT[row].tolist() == documents + [last - first] * padding
            row += 1
    assert row == reader.num_windows


def test_a_row_of_two_documents_tells_them_apart(shards: ShardedTokens) -> None:
    build_pack_indexes(shards, 500)
    rows = PackedRows(shards, 500).read(np.array([0]))
    starts = np.flatnonzero(rows.input_ids_NT[0] == BOS_ID)
    assert len(starts) > 1
    assert rows.document_ids_NT[0, starts].tolist() == list(range(len(starts)))
    assert rows.compute_position_ids()[0, starts].tolist() == [0] * len(starts)


def test_the_configuration_chooses_the_packing(shards: ShardedTokens) -> None:
    config = DataConfig(folder=Path("x"), packing="best_fit")
    with pytest.raises(DataError, match="pack index"):
        open_rows(shards, config, T)
    build_pack_indexes(shards, T)
    assert isinstance(open_rows(shards, config, T), PackedRows)
    assert isinstance(open_rows(shards, DataConfig(folder=Path("x")), T), StreamRows)
