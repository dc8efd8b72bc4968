import hashlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmtrain.errors import DataError
from llmtrain.shards.format import HEADER_BYTES, ShardHeader, read_header
from llmtrain.shards.manifest import MANIFEST_NAME, MANIFEST_VERSION, read_manifest
from llmtrain.shards.reader import ShardedTokens, open_data
from llmtrain.shards.writer import ShardWriter
from tests.helpers.shards import SETTINGS, make_documents, make_origin, write_split


def test_documents_come_back_across_shard_borders(tmp_path: Path) -> None:
    documents = make_documents(50)
    shards = write_split(tmp_path / "train", documents, shard_tokens=97)
    stream = np.concatenate(documents)
    assert len(shards.manifest.shards) > 5
    assert shards.token_count == len(stream)
    assert shards.document_count == 50
    for start, length in ((0, len(stream)), (90, 20), (1, 300), (len(stream) - 5, 5)):
        assert shards.read(start, length).tolist() == stream[start : start + length].tolist()
    assert shards.read(len(stream) - 3, 10).tolist() == stream[-3:].tolist()


def test_document_ends_mark_every_document(tmp_path: Path) -> None:
    documents = make_documents(50)
    shards = write_split(tmp_path / "train", documents, shard_tokens=97)
    lengths = [
        length
        for shard in range(len(shards.manifest.shards))
        for length in np.diff(shards.document_ends(shard).astype(int), prepend=0).tolist()
    ]
    assert lengths == [len(document) for document in documents]


def test_writing_in_batches_gives_the_same_files_as_one_by_one(tmp_path: Path) -> None:
    documents = make_documents(40)
    one_by_one = write_split(tmp_path / "a", documents, shard_tokens=120)
    with ShardWriter(tmp_path / "b", **(SETTINGS | {"shard_tokens": 120})) as writer:
        for start, stop in ((0, 7), (7, 8), (8, 40)):
            chunk, origins = documents[start:stop], list(map(make_origin, range(start, stop)))
            writer.write_documents(np.concatenate(chunk), np.array([len(document) for document in chunk]), origins)
    assert read_manifest(tmp_path / "b")[0] == one_by_one.manifest


@pytest.mark.parametrize(("vocab_size", "bytes_per_token"), [(300, 2), (1 << 16, 2), ((1 << 16) + 1, 4)])
def test_a_small_vocabulary_takes_two_bytes(tmp_path: Path, vocab_size: int, bytes_per_token: int) -> None:
    documents = [np.array([1, vocab_size - 1, 2])]
    shards = write_split(tmp_path / "train", documents, vocab_size=vocab_size)
    assert read_header(tmp_path / "train" / "shard-00000.tokens").bytes_per_token == bytes_per_token
    assert shards.read(0, 3).tolist() == [1, vocab_size - 1, 2]


def test_ids_outside_the_vocabulary_are_refused(tmp_path: Path) -> None:
    for wrong in (-1, 300):
        with pytest.raises(DataError, match=r"token ids from .* for a vocabulary of 300"):
            write_split(tmp_path / "train", [np.array([1, wrong, 2])])
    assert not (tmp_path / "train" / MANIFEST_NAME).exists()


def test_a_split_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a single document of source 'web'"):
        write_split(tmp_path / "train", [])


def test_an_interrupted_writer_leaves_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError), ShardWriter(tmp_path / "train", **SETTINGS) as writer:
        writer.write_documents(np.array([1, 5, 2, 1, 999, 2]), np.array([3, 3]), [make_origin(0)] * 2)
    with pytest.raises(DataError, match="cannot be read"):
        ShardedTokens(tmp_path / "train")


def damage(path: Path, offset: int, value: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(value)] = value
    path.write_bytes(content)


def test_a_flipped_byte_is_found_by_verification(tmp_path: Path) -> None:
    shards = write_split(tmp_path / "train", make_documents(20))
    shards.verify()
    damage(tmp_path / "train" / "shard-00000.tokens", HEADER_BYTES + 3, b"\x77")
    with pytest.raises(DataError, match=r"shard-00000\.tokens: sha256 is .* damaged"):
        ShardedTokens(tmp_path / "train").verify()


def test_several_processes_share_the_verification(tmp_path: Path) -> None:
    shards = write_split(tmp_path / "train", make_documents(50), shard_tokens=97)
    damage(tmp_path / "train" / "shard-00001.tokens", HEADER_BYTES, b"\x77")
    shards.verify(0, 2)
    with pytest.raises(DataError, match="shard-00001"):
        shards.verify(1, 2)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"NOTASHRD", "is not a token shard"),
        (8, b"\x09", "format version 9"),
        (12, b"\x03", "3 bytes per token"),
        (16, b"\x01\x00", "truncated or damaged"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, offset: int, value: bytes, message: str) -> None:
    write_split(tmp_path / "train", make_documents(20))
    path = tmp_path / "train" / "shard-00000.tokens"
    damage(path, offset, value)
    with pytest.raises(DataError, match=message):
        read_header(path)


def test_damaged_document_ends_are_refused(tmp_path: Path) -> None:
    shards = write_split(tmp_path / "train", make_documents(20))
    path = tmp_path / "train" / "shard-00000.tokens"
    offset = read_header(path).ends_offset
    damage(path, offset, (10**9).to_bytes(8, "little"))
    with pytest.raises(DataError, match="document ends do not ascend to the last of"):
        shards.document_ends(0)


def test_a_shard_of_equal_size_but_another_count_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path / "a", [np.array([1, 7, 2]), np.array([1, 2])])
    write_split(tmp_path / "b", [np.array([1, 7, 2]), np.array([1, 7, 2])])
    (tmp_path / "a" / "shard-00000.tokens").write_bytes((tmp_path / "b" / "shard-00000.tokens").read_bytes())
    with pytest.raises(DataError, match="holds 6 tokens, the manifest says 5: they do not belong together"):
        ShardedTokens(tmp_path / "a").read(0, 5)


def test_a_writer_killed_in_the_middle_leaves_no_manifest(tmp_path: Path) -> None:
    script = f"""
import os, signal, numpy as np
from pathlib import Path
from tests.helpers.shards import SETTINGS, make_origin
from llmtrain.shards.writer import ShardWriter
writer = ShardWriter(Path({str(tmp_path / "train")!r}), **(SETTINGS | {{"shard_tokens": 3}}))
for _ in range(5):
    writer.write_document(np.array([1, 7, 2]), make_origin(0))
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "train").glob("*.tokens"))) == 6
    with pytest.raises(DataError, match="cannot be read"):
        ShardedTokens(tmp_path / "train")
    assert write_split(tmp_path / "train", [np.array([1, 2])]).token_count == 2
    assert len(list((tmp_path / "train").glob("*.tokens"))) == 1


def test_a_truncated_or_missing_shard_is_found_at_opening(tmp_path: Path) -> None:
    write_split(tmp_path / "train", make_documents(20))
    path = tmp_path / "train" / "shard-00000.tokens"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="truncated, replaced or lost"):
        ShardedTokens(tmp_path / "train")
    path.unlink()
    with pytest.raises(DataError, match="missing, the manifest says"):
        ShardedTokens(tmp_path / "train")


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path / "train", make_documents(20))
    path = tmp_path / "train" / MANIFEST_NAME
    whole = path.read_text()
    path.write_text(whole[:-20])
    with pytest.raises(DataError, match=r"manifest\.json: damaged"):
        ShardedTokens(tmp_path / "train")
    path.write_text(whole.replace(f'"format_version": {MANIFEST_VERSION}', '"format_version": 99'))
    with pytest.raises(DataError, match="format version 99; this llmtrain reads 1 and 2"):
        ShardedTokens(tmp_path / "train")


def test_the_identity_of_data_is_its_content_not_its_path(tmp_path: Path) -> None:
    first = write_split(tmp_path / "a" / "train", make_documents(20))
    moved = write_split(tmp_path / "b" / "elsewhere", make_documents(20))
    other = write_split(tmp_path / "c" / "train", make_documents(21))
    assert first.manifest_sha256 == moved.manifest_sha256 != other.manifest_sha256


def test_opening_names_missing_sources_and_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no train shards here"):
        open_data(tmp_path, "train")
    write_split(tmp_path / "shards" / "web" / "train", make_documents(20))
    assert list(open_data(tmp_path, "train")) == ["web"]
    with pytest.raises(DataError, match=r"no train shards of books\. There are: web"):
        open_data(tmp_path, "train", ["web", "books"])


def test_sources_of_different_tokenizers_do_not_mix(tmp_path: Path) -> None:
    write_split(tmp_path / "shards" / "a" / "train", make_documents(20))
    write_split(tmp_path / "shards" / "b" / "train", make_documents(20), tokenizer_sha256="f" * 64)
    with pytest.raises(DataError, match="different tokenizers: a 000000000000, b ffffffffffff"):
        open_data(tmp_path, "train")


# A file of format version 1, as the first release wrote it.
VERSION_1 = bytes.fromhex(
    "4c4c4d5453485244010000000200000005000000000000000200000000000000"
    + "00" * 32
    + "01000700020001000200"
    + "000000000000"
    + "0300000000000000"
    + "0500000000000000"
)


def test_files_of_format_version_1_stay_readable(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    shards = write_split(folder, [np.array([1, 7, 2]), np.array([1, 2])])
    written: dict[str, Any] = shards.manifest.shards[0].model_dump()
    assert (folder / "shard-00000.tokens").read_bytes() == VERSION_1
    assert written["sha256"] == hashlib.sha256(VERSION_1).hexdigest()
    assert shards.document_ends(0).tolist() == [3, 5]
    assert ShardHeader(2, 5, 2).file_bytes == len(VERSION_1)
