"""Property tests over the whole way from documents to batches."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrain.data.rows import PackedRows, StreamRows
from llmtrain.shards.packing import build_pack_indexes
from llmtrain.shards.reader import ShardedTokens
from tests.helpers.shards import BOS_ID, EOS_ID, write_split

LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=40)


def write_numbered(folder: Path, lengths: list[int], shard_tokens: int) -> tuple[ShardedTokens, list[np.ndarray]]:
    """Documents in which each inner token is different, so that each can be told from all others."""
    ends = np.cumsum(lengths)
    documents = [
        np.concatenate(([BOS_ID], np.arange(end - length, end) + 4, [EOS_ID]))
        for length, end in zip(lengths, ends.tolist(), strict=True)
    ]
    return write_split(folder, documents, shard_tokens=shard_tokens, vocab_size=100_000), documents


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, shard_tokens=st.integers(1, 300), sequence_length=st.integers(1, 24))
def test_windows_of_an_epoch_hold_every_token_once_but_for_the_tail(
    lengths: list[int], shard_tokens: int, sequence_length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shards, documents = write_numbered(tmp_path_factory.mktemp("s") / "train", lengths, shard_tokens)
    rows = StreamRows(shards, sequence_length, mask_across_documents=False)
    stream = np.concatenate(documents)
    read = rows.read(np.arange(rows.num_windows)).input_ids_NT.reshape(-1)
    assert read.tolist() == stream[: rows.num_windows * sequence_length].tolist()
    assert len(stream) - len(read) <= sequence_length
    places = [place for window in range(rows.num_windows) for place in rows.locate(window)]
    assert [shards.read(start, stop - start).tolist() for start, stop in places] == [
        rows.read(np.array([window])).input_ids_NT[0].tolist() for window in range(rows.num_windows)
    ]


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, shard_tokens=st.integers(1, 300), sequence_length=st.integers(1, 24))
def test_packed_rows_of_an_epoch_hold_every_token_once(
    lengths: list[int], shard_tokens: int, sequence_length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shards, documents = write_numbered(tmp_path_factory.mktemp("s") / "train", lengths, shard_tokens)
    build_pack_indexes(shards, sequence_length)
    rows = PackedRows(shards, sequence_length)
    read = rows.read(np.arange(rows.num_windows)).input_ids_NT
    taken = np.zeros(shards.token_count, np.int64)
    unpacked = np.full(shards.token_count, -1)
    for window in range(rows.num_windows):
        position = 0
        for start, stop in rows.locate(window):
            taken[start:stop] += 1
            unpacked[start:stop] = read[window, position : position + stop - start]
            position += stop - start
        assert position <= sequence_length
        assert (read[window, position:] == EOS_ID).all()
    assert (taken == 1).all()
    ends = np.cumsum([len(document) for document in documents])[:-1]
    assert [part.tolist() for part in np.split(unpacked, ends)] == [document.tolist() for document in documents]
