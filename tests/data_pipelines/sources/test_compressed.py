import bz2
import gzip
import io
import lzma
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from data_pipelines.sources import compressed
from data_pipelines.sources.compressed import open_decompressed, read_lines, read_whole

CONTENT = b"".join(b"line %d\n" % number for number in range(50_000)) + random.Random(1).randbytes(300_000)


@pytest.mark.parametrize("name", ["plain", "gzip", "bzip2", "zstd", "frames", "xz"])
def test_the_first_bytes_tell_how_a_file_is_compressed(tmp_path: Path, name: str) -> None:
    encoded = {
        "plain": CONTENT,
        "gzip": gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:]),
        "bzip2": bz2.compress(CONTENT[:1000]) + bz2.compress(CONTENT[1000:]),
        "zstd": zstandard.compress(CONTENT),
        "frames": zstandard.compress(CONTENT[:1000]) + zstandard.compress(b"") + zstandard.compress(CONTENT[1000:]),
        "xz": lzma.compress(CONTENT[:1000]) + bytes(8) + lzma.compress(CONTENT[1000:]) + bytes(4),
    }[name]
    (tmp_path / name).write_bytes(encoded)
    with open_decompressed(str(tmp_path / name)) as stream:
        assert stream.read() == CONTENT


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, zstandard.compress, lzma.compress])
def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    (tmp_path / "a").write_bytes(compress(CONTENT)[:-20])
    with (
        pytest.raises(EOFError, match=r"cut off|Compressed file ended"),
        open_decompressed(str(tmp_path / "a")) as file,
    ):
        file.read()


def test_damaged_xz_and_one_that_asks_for_too_much_memory_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = bytearray(lzma.compress(CONTENT))
    (tmp_path / "large").write_bytes(encoded)
    encoded[len(encoded) // 2] ^= 0xFF
    (tmp_path / "damaged").write_bytes(encoded)
    with pytest.raises(OSError, match="Corrupt input data"), open_decompressed(str(tmp_path / "damaged")) as file:
        file.read()
    monkeypatch.setattr(compressed, "_XZ_MEMORY_BYTES", 1 << 20)
    with pytest.raises(OSError, match="Memory usage limit"), open_decompressed(str(tmp_path / "large")) as file:
        file.read()


def test_a_line_that_is_too_long_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "MAX_RECORD_BYTES", 5)
    monkeypatch.setattr(compressed, "_READ_BYTES", 3)
    lines = b"a\n1234\n12345\n1234567890\nb\n123456789"
    assert list(read_lines(io.BytesIO(lines))) == [b"a\n", b"1234\n", None, None, b"b\n", None]
    assert read_whole(io.BytesIO(b"12345")) == b"12345"
    assert read_whole(io.BytesIO(b"123456")) is None


@pytest.mark.parametrize(("compress", "times"), [(gzip.compress, 50), (zstandard.compress, 500), (lzma.compress, 50)])
def test_a_gigabyte_in_one_line_takes_the_memory_of_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: Callable[[bytes], bytes], times: int
) -> None:
    monkeypatch.setattr(compressed, "MAX_RECORD_BYTES", 4_000_000)
    (tmp_path / "a").write_bytes(compress(bytes(2_000_000)) * times + compress(b"\nafter\n"))
    assert (tmp_path / "a").stat().st_size < 2_000_000
    tracemalloc.start()
    with open_decompressed(str(tmp_path / "a")) as stream:
        assert list(read_lines(stream)) == [None, b"after\n"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60_000_000
