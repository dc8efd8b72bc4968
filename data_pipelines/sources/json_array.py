"""A JSON array as a stream: its elements one after the other, in memory for the longest of them."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from data_pipelines.sources.compressed import MAX_RECORD_BYTES

_READ_BYTES = 1 << 18
_SPACE = re.compile(r"[ \t\r\n]*")


def read_array(stream: BinaryIO) -> Iterator[object]:
    """Elements of an array, each an object or a list.

    Raises:
        ValueError: it is no JSON, or an element is longer than MAX_RECORD_BYTES.
        RecursionError: it is nested too deeply.
        OSError, EOFError, zlib.error, zstandard.ZstdError: the file is damaged.
    """
    text = _Text(stream)
    text.take("[")
    mark = text.take("]", or_nothing=True)
    number = 0
    while mark != "]":
        yield text.decode(number)
        number += 1
        mark = text.take(",]")
    if rest := text.look():
        raise ValueError(f"extra data after its end: {rest!r}")


class _Text:
    """Text that is read as it is asked for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        beginning = stream.read(_READ_BYTES)
        self._decoder = codecs.getincrementaldecoder(json.detect_encoding(beginning))("surrogatepass")
        self._text, self._place = self._decoder.decode(beginning), 0
        self._scan = json.JSONDecoder().raw_decode

    def look(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._place)
            self._place = match.end() if match else self._place
            if self._place < len(self._text) or not self._read_more():
                return self._text[self._place : self._place + 1]

    def take(self, allowed: str, *, or_nothing: bool = False) -> str:
        """The next character, which must be one of these."""
        character = self.look()
        if character and character in allowed:
            self._place += 1
            return character
        if or_nothing:
            return ""
        raise ValueError(f"Expecting {' or '.join(map(repr, allowed))}, not {character!r}")

    def decode(self, number: int) -> object:
        """The next element."""
        self.look()
        while True:
            try:
                value, self._place = self._scan(self._text, self._place)
            except json.JSONDecodeError as error:
                if len(self._text) - self._place > MAX_RECORD_BYTES:
                    raise ValueError(
                        f"element {number:,} is longer than {MAX_RECORD_BYTES:,} characters, or no JSON"
                    ) from error
                if not self._read_more():
                    raise
            else:
                return value

    def _read_more(self) -> bool:
        """Twice as much text, so that a long element is not looked at again and again; whether there was any."""
        size = len(self._text) - self._place
        data = self._stream.read(max(_READ_BYTES, min(size, MAX_RECORD_BYTES - size + 1)))
        self._text = self._text[self._place :] + self._decoder.decode(data, final=not data)
        self._place = 0
        return bool(data)
