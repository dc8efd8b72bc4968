import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from data_pipelines.document import Document, hash_file, read_documents, read_zstd_lines, write_documents
from llmtrain.errors import DataError
from tests.helpers.texts import stdlib_texts

DOCUMENTS = [
    *(Document(text, f"module {number}", "PSF-2.0") for number, text in enumerate(stdlib_texts())),
    Document("line ends \n \r\n \u2028 \x85 and é 🎉", "http://a.org/?b=c#1", ""),
]


def test_documents_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.jsonl.zst"
    assert write_documents(path, iter(DOCUMENTS)) == len(DOCUMENTS)
    assert list(read_documents(path)) == DOCUMENTS
    assert [file.name for file in path.parent.iterdir()] == ["a.jsonl.zst"]


def test_no_documents_make_an_empty_file(tmp_path: Path) -> None:
    assert write_documents(tmp_path / "a.jsonl.zst", []) == 0
    assert list(read_documents(tmp_path / "a.jsonl.zst")) == []


def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl.zst"
    write_documents(path, DOCUMENTS)

    def fill_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fill_disk)
        with pytest.raises(DataError) as raised:
            write_documents(path, DOCUMENTS[:1])
    assert str(raised.value) == (
        f"{path}: could not be written: [Errno 28] No space left on device. Free some space, then run "
        "`llmtrain data prepare` again: finished parts are kept."
    )
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl.zst"]
    assert list(read_documents(path)) == DOCUMENTS


def test_a_reader_that_fails_leaves_nothing_half_written(tmp_path: Path) -> None:
    def fail() -> Iterator[Document]:
        yield DOCUMENTS[0]
        raise DataError("the input is damaged")

    with pytest.raises(DataError, match="the input is damaged"):
        write_documents(tmp_path / "a.jsonl.zst", fail())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 1, 20, 0.3, 0.99, -1])
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.jsonl.zst"
    write_documents(path, DOCUMENTS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(DataError) as raised:
        list(read_documents(path))
    assert str(raised.value) == (
        f"{path}: damaged or missing: it is cut off. Remove the folder around it and run `llmtrain data prepare` again."
    )


@pytest.mark.parametrize("lines", [b"no json\n", b'{"text": "no origin"}\n', b"[1]\n", b'{"text": "\xff"}\n'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, lines: bytes) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(lines))
    with pytest.raises(DataError, match=r"a\.jsonl\.zst: damaged or missing: "):
        list(read_documents(path))


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    with pytest.raises(DataError, match="No such file"):
        list(read_documents(path))
    write_documents(path, DOCUMENTS)
    content = bytearray(path.read_bytes())
    content[:4] = b"none"
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged or missing"):
        list(read_documents(path))


@pytest.mark.parametrize("read_bytes", [1, 7, 1 << 20])
def test_lines_do_not_depend_on_frames_and_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr("data_pipelines.document._READ_BYTES", read_bytes)
    path = tmp_path / "a.zst"
    path.write_bytes(b"".join(zstandard.compress(part) for part in (b"one\ntw", b"", b"o\n\nthree\nlast")))
    assert list(read_zstd_lines(path)) == [b"one", b"two", b"", b"three", b"last"]


def test_the_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_no_flipped_bit_comes_out_as_another_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    write_documents(path, DOCUMENTS)
    whole, refused, flips = path.read_bytes(), 0, 240
    for flip in range(flips):
        bit = len(whole) * 8 * flip // flips
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            assert list(read_documents(path)) == DOCUMENTS
        except DataError:
            refused += 1
    assert refused >= flips - 1  # a frame has one bit that means nothing
