from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrain.errors import DataError
from llmtrain.shards.manifest import read_manifest
from llmtrain.shards.origins import HEADER_BYTES, Origin, Origins, OriginsWriter, compute_file_bytes
from llmtrain.shards.reader import ShardedTokens
from llmtrain.shards.trace import Tracer
from tests.helpers.shards import make_documents, make_origin, write_split

FIXTURES = Path(__file__).parent / "fixtures"
ORIGINS = st.builds(
    Origin,
    id=st.binary(min_size=16, max_size=16).map(bytes.hex),
    origin=st.text(st.characters(exclude_categories=["Cs"])),
    licence=st.text(max_size=5),
    language=st.text(max_size=3),
    place=st.text(max_size=9),
)


def write(path: Path, origins: list[Origin]) -> Origins:
    writer = OriginsWriter(path)
    writer.write(origins)
    size, _ = writer.close()
    assert size == path.stat().st_size
    return Origins(path, len(origins))


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ORIGINS, max_size=30), repeated=st.booleans())
def test_every_origin_comes_back_by_number_and_by_id(
    rows: list[Origin], repeated: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = rows * 2 if repeated else rows
    opened = write(tmp_path_factory.mktemp("origins") / "shard-00000.documents", rows)
    assert [opened.read(i) for i in range(len(rows))] == rows
    for row in rows:
        assert opened.find(row.id) == [i for i, other in enumerate(rows) if other.id == row.id]
    assert opened.find("0" * 31 + "7") == [i for i, other in enumerate(rows) if other.id == "0" * 31 + "7"]


def test_only_a_file_that_says_where_documents_were_read_needs_a_reader_that_knows(tmp_path: Path) -> None:
    for place, version in (("", 1), ("crawl/a.warc.gz#7", 2)):
        write(tmp_path / "a", [make_origin(0), replace(make_origin(1), place=place)])
        assert (tmp_path / "a").read_bytes()[8] == version


def test_writing_in_pieces_gives_the_same_file(tmp_path: Path) -> None:
    rows = [make_origin(number) for number in range(20)]
    write(tmp_path / "a", rows)
    writer = OriginsWriter(tmp_path / "b")
    for start, stop in ((0, 1), (1, 15), (15, 20)):
        writer.write(rows[start:stop])
    writer.close()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("document_id", ["", "abc", "g" * 32, "0" * 31, "0" * 34])
def test_what_is_no_id_is_refused(tmp_path: Path, document_id: str) -> None:
    writer = OriginsWriter(tmp_path / "a")
    with pytest.raises(DataError, match=r"document id '.*' of page\.html is not 32 hexadecimal digits"):
        writer.write([Origin(document_id, "page.html", "CC0-1.0")])
    writer.abandon()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"NOTADOCS", "magic b'NOTADOCS'"),
        (8, b"\x09", "format version 9"),
        (16, b"\x07", "header says 7 documents"),
        (HEADER_BYTES, b"\xff", "record 0 is damaged"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, offset: int, value: bytes, message: str) -> None:
    path = tmp_path / "a"
    write(path, [make_origin(0), make_origin(1)])
    content = bytearray(path.read_bytes())
    content[offset : offset + len(value)] = value
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        Origins(path, 2).read(0)


def test_a_short_or_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, [make_origin(0)])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="truncated, or of another shard"):
        Origins(path, 1)
    path.write_bytes(b"LLMT")
    with pytest.raises(DataError, match="cannot be read"):
        Origins(path, 1)
    with pytest.raises(DataError, match="cannot be read"):
        Origins(tmp_path / "b", 1)


def test_every_token_leads_to_its_document_across_shards(tmp_path: Path) -> None:
    documents = make_documents(30)
    shards = write_split(tmp_path / "train", documents, shard_tokens=700)
    assert len(shards.manifest.shards) > 3
    tracer = Tracer(shards)
    expected = np.repeat(np.arange(30), [len(document) for document in documents]).tolist()
    assert [tracer.trace_position(i).number for i in range(shards.token_count)] == expected
    for number, document in enumerate(documents):
        traced = tracer.trace_number(number)
        assert traced.origin == make_origin(number)
        assert shards.read(traced.start, traced.length).tolist() == document.tolist()
        assert list(tracer.trace_id(make_origin(number).id)) == [traced]
    whole = [traced.number for traced in tracer.trace_range(0, shards.token_count)]
    assert whole == list(range(30))
    assert [traced.number for traced in tracer.trace_range(5, 6)] == [0]


def test_what_lies_beyond_the_end_is_refused(tmp_path: Path) -> None:
    tracer = Tracer(write_split(tmp_path / "train", [np.array([1, 7, 2]), np.array([1, 2])]))
    for position in (-1, 5):
        with pytest.raises(DataError, match=r"its train split has 5 tokens\. Choose 0 to 4"):
            tracer.trace_position(position)
    for number in (-1, 2):
        with pytest.raises(DataError, match=r"its train split has 2\. Choose 0 to 1"):
            tracer.trace_number(number)


@pytest.mark.parametrize("file", ["shard-00000.tokens", "shard-00000.documents"])
def test_every_flipped_byte_of_a_shard_or_its_origins_is_found(tmp_path: Path, file: str) -> None:
    shards = write_split(tmp_path / "train", [np.array([1, 7, 2]), np.array([1, 2])])
    path = tmp_path / "train" / file
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(DataError, match="shard-00000"):
            shards.verify()
    path.write_bytes(whole)
    shards.verify()


def test_lost_origins_are_found_at_opening(tmp_path: Path) -> None:
    write_split(tmp_path / "train", [np.array([1, 7, 2])])
    (tmp_path / "train" / "shard-00000.documents").unlink()
    with pytest.raises(DataError, match=r"origins .*shard-00000\.documents: missing, the manifest says"):
        ShardedTokens(tmp_path / "train")


def test_a_folder_of_manifest_version_1_is_read_and_says_that_it_has_no_origins() -> None:
    shards = ShardedTokens(FIXTURES / "version_1")
    shards.verify()
    assert shards.manifest.format_version == 1
    assert shards.read(0, 5).tolist() == [1, 7, 2, 1, 2]
    with pytest.raises(DataError, match="manifest version 1 without origins"):
        Tracer(shards)


def test_a_folder_of_manifest_version_2_is_read_and_written_to_the_same_bytes(tmp_path: Path) -> None:
    folder = FIXTURES / "version_2"
    shards = ShardedTokens(folder)
    shards.verify()
    assert shards.manifest.format_version == 2
    assert [Tracer(shards).trace_number(i).origin for i in (0, 1)] == [make_origin(0), make_origin(1)]
    write_split(tmp_path / "train", [np.array([1, 7, 2]), np.array([1, 2])])
    written = {path.name: path.read_bytes() for path in (tmp_path / "train").iterdir()}
    assert written == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert read_manifest(folder)[0].shards[0].origins is not None
    size = (folder / "shard-00000.documents").stat().st_size
    assert size == compute_file_bytes(2, 2 * len('["crawl/0.html", "CC0-1.0", "en"]'))
