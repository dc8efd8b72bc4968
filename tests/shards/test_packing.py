from pathlib import Path

import numpy as np
import pytest

from llmtrain.errors import DataError
from llmtrain.shards.packing import build_pack_indexes, open_pack_index, pack_documents
from tests.helpers.shards import make_documents, write_split


@pytest.mark.parametrize("sequence_length", [8, 64, 500])
def test_every_token_is_in_exactly_one_row_and_what_fits_is_not_cut(sequence_length: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 300)
    ends = np.cumsum(lengths).astype(np.uint64)
    index = pack_documents(ends, sequence_length)
    covered = np.zeros(int(ends[-1]), int)
    for start, length in zip(index.starts.tolist(), index.lengths.tolist(), strict=True):
        covered[start : start + length] += 1
    assert set(covered.tolist()) == {1}
    per_row = np.add.reduceat(index.lengths.astype(int), index.row_offsets[:-1].astype(int))
    assert per_row.max() <= sequence_length
    segments = set(zip(index.starts.tolist(), index.lengths.tolist(), strict=True))
    for end, length in zip(ends.tolist(), lengths.tolist(), strict=True):
        if length <= sequence_length:
            assert (end - length, length) in segments


def test_rows_are_nearly_full() -> None:
    lengths = np.random.default_rng(1).integers(1, 200, 2000)
    index = pack_documents(np.cumsum(lengths).astype(np.uint64), 512)
    assert lengths.sum() / (index.num_rows * 512) > 0.99


def test_an_index_is_built_once_and_read_back(tmp_path: Path) -> None:
    shards = write_split(tmp_path / "train", make_documents(60))
    count = len(shards.manifest.shards)
    assert build_pack_indexes(shards, 64) == count
    assert build_pack_indexes(shards, 64) == 0
    expected = pack_documents(shards.document_ends(0), 64)
    found = open_pack_index(shards, 0, 64)
    for name in ("row_offsets", "starts", "lengths"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()


def test_several_processes_share_the_packing(tmp_path: Path) -> None:
    shards = write_split(tmp_path / "train", make_documents(60))
    count = len(shards.manifest.shards)
    assert count > 3
    written = [build_pack_indexes(shards, 64, part, 3) for part in range(3)]
    assert sum(written) == count
    assert max(written) - min(written) <= 1
    assert all(open_pack_index(shards, shard, 64).num_rows > 0 for shard in range(count))


def test_an_index_of_another_shard_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    shards = write_split(tmp_path / "train", make_documents(60))
    with pytest.raises(DataError, match="cannot be read"):
        open_pack_index(shards, 0, 64)
    build_pack_indexes(shards, 64)
    path = shards.folder / "shard-00000.pack-64"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(DataError, match="truncated"):
        open_pack_index(shards, 0, 64)
    path.write_bytes((shards.folder / "shard-00001.pack-64").read_bytes())
    with pytest.raises(DataError, match="belongs to another shard"):
        open_pack_index(shards, 0, 64)
