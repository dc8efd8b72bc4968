"""Compressed files as streams of bounded memory, and their lines of bounded length."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import zstandard

from data_pipelines.sources.storage import open_file

MAX_RECORD_BYTES = 64_000_000
"""A line, page, text or record of an archive above this is left out and counted as `too_large`."""
_READ_BYTES = 1 << 18
# A block of 4 bytes can hold 128 KiB: this many bytes become 32 MiB at most.
_INPUT_BYTES = 1 << 10
_GZIP, _BZIP2, _ZSTD, _XZ = b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0"
_XZ_MEMORY_BYTES = 256 << 20  # `xz -9` takes 65 MiB; a header may ask for 4 GiB


def open_decompressed(name: str) -> BinaryIO:
    """What a plain, gzip, bzip2, xz or zstd file holds; its first bytes tell which, not its name.

    Raises:
        OSError: it cannot be opened; when reading, also that its compression is damaged.
        EOFError: when reading: it is cut off.
        zlib.error: when reading: its compression is damaged.
        zstandard.ZstdError: the same.
    """
    file = cast(io.BufferedReader, open_file(name))
    magic = file.peek(len(_XZ))[: len(_XZ)]
    if magic.startswith(_GZIP):
        return cast(BinaryIO, gzip.open(file))
    if magic.startswith(_BZIP2):
        return cast(BinaryIO, bz2.open(file))
    if magic.startswith(_ZSTD):
        frames = _FramedFile(file, lambda: zstandard.ZstdDecompressor().decompressobj())
        return cast(BinaryIO, io.BufferedReader(frames, _READ_BYTES))
    if magic == _XZ:
        return cast(BinaryIO, io.BufferedReader(_FramedFile(file, _decompress_xz), _READ_BYTES))
    return file


def read_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines with their ends; None for one that is longer than MAX_RECORD_BYTES."""
    while line := stream.readline(MAX_RECORD_BYTES + 1):
        if len(line) <= MAX_RECORD_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(_READ_BYTES)
        yield None


def read_whole(stream: BinaryIO) -> bytes | None:
    """All that is left of a stream; None if it is more than MAX_RECORD_BYTES."""
    content = stream.read(MAX_RECORD_BYTES + 1)
    return content if len(content) <= MAX_RECORD_BYTES else None


def _decompress_xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)


class _FramedFile(io.RawIOBase):
    """One or more frames of zstd or xz (zstandard's own reader takes a file that is cut off for a complete one)."""

    def __init__(self, file: BinaryIO, start_frame: Callable[[], Any]) -> None:
        self._file, self._start_frame = file, start_frame
        self._decompressor = start_frame()
        self._input, self._output = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            self._input = self._input or self._file.read(_INPUT_BYTES)
            if not self._input:
                if not self._decompressor.eof:
                    raise EOFError("it is cut off")
                return 0
            if self._decompressor.eof:
                self._input = self._input.lstrip(b"\0")  # xz may be padded; no frame begins with a zero
                if not self._input:
                    continue
                self._decompressor = self._start_frame()
            try:
                self._output = memoryview(self._decompressor.decompress(self._input))
            except lzma.LZMAError as error:
                raise OSError(str(error)) from error
            self._input = self._decompressor.unused_data
        size = min(len(buffer), len(self._output))
        buffer[:size] = self._output[:size]
        self._output = self._output[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()
