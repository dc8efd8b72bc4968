"""A file of many gzip members in sections, which goes on at the next one after a damaged one.

WARC archives are compressed record by record, so a flipped bit can cost a single record. Python's gzip module ends at
the first error.
"""

import zlib
from typing import BinaryIO

_MAGIC = b"\x1f\x8b\x08"
_READ_BYTES = 1 << 16
_OUTPUT_BYTES = 1 << 20
_KEPT_BYTES = 8 << 20  # of a member, to look for the next one inside what was taken for this one


class DamagedMemberError(Exception):
    """A member is damaged; the stream stands at the beginning of the next readable one, which begins a section."""


class GzipMembers:
    """What the members hold, section by section: a member that begins with the opening, and those after it that do not.

    Args:
        file: compressed.
        opening: how what a section holds begins; tells a member from bytes that only look like one, too.
    """

    def __init__(self, file: BinaryIO, opening: bytes) -> None:
        self._file, self._opening = file, opening
        self._decompressor = zlib.decompressobj(wbits=31)
        self._compressed = b""
        self._member = bytearray()
        self._output = b""
        self._position = 0
        self._is_next_waiting = False
        self._damage: DamagedMemberError | None = None

    @property
    def is_next_waiting(self) -> bool:
        """Whether this section was read to its end, and another one is there."""
        return self._is_next_waiting

    def next_section(self) -> bool:
        """Go on to the next section after this one was read to its end; whether there is one.

        Raises:
            DamagedMemberError: see there.
        """
        is_there, self._is_next_waiting = self._is_next_waiting, False
        if self._damage is not None:
            damage, self._damage = self._damage, None
            raise damage
        return is_there

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end of the section.

        Raises:
            DamagedMemberError: see there.
            EOFError: the file is cut off.
            zlib.error: it is damaged, and no later member can be read.
        """
        parts, missing = [], size
        while missing and self._has_output():
            part = self._output[self._position : self._position + missing]
            self._position += len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def readline(self, limit: int) -> bytes:
        """A line with its end, or as much of it as the limit allows. Raises as `read` does."""
        parts, missing = [], limit
        while missing and self._has_output():
            end = self._output.find(b"\n", self._position, self._position + missing) + 1
            part = self._output[self._position : end or self._position + missing]
            self._position += len(part)
            missing -= len(part)
            parts.append(part)
            if end:
                break
        return b"".join(parts)

    def __enter__(self) -> "GzipMembers":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _has_output(self) -> bool:
        return not self._is_next_waiting and (self._position < len(self._output) or self._fill())

    def _fill(self) -> bool:
        """Decompress some more; whether there was any in this section."""
        self._output, self._position, is_new = b"", 0, False
        while not self._output or (is_new and len(self._output) < len(self._opening) and not self._decompressor.eof):
            if self._decompressor.eof:
                # Zeros after the last member are padding, as of tape blocks.
                rest = self._decompressor.unused_data.lstrip(b"\0") or self._read_padding()
                if not rest:
                    return False
                self._start_member(rest)
                is_new = True
            try:
                if not self._decompress():
                    return False
            except DamagedMemberError as damage:
                if not is_new:
                    raise
                self._is_next_waiting, self._damage = True, damage
                return False
        self._is_next_waiting = is_new and self._output.startswith(self._opening)
        return not self._is_next_waiting

    def _decompress(self) -> bool:
        """Add to the output what some more bytes of the member give; False when the file is empty."""
        is_over = False
        if not self._compressed:
            self._compressed = self._file.read(_READ_BYTES)
            is_over = not self._compressed
            if is_over and not self._member:
                return False
            self._note(self._compressed)
        output = b""
        try:
            output = self._decompressor.decompress(self._compressed, _OUTPUT_BYTES)
        except zlib.error as error:
            self._find_next_member(error)
        self._output += output
        self._compressed = self._decompressor.unconsumed_tail
        if is_over and not output and not self._decompressor.eof:
            raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        return True

    def _start_member(self, compressed: bytes) -> None:
        self._decompressor = zlib.decompressobj(wbits=31)
        self._compressed = compressed
        self._member = bytearray(compressed)

    def _read_padding(self) -> bytes:
        while data := self._file.read(_READ_BYTES):
            if data := data.lstrip(b"\0"):
                return data
        return b""

    def _note(self, compressed: bytes) -> None:
        self._member += compressed
        if len(self._member) > 2 * _KEPT_BYTES:
            del self._member[:-_KEPT_BYTES]

    def _find_next_member(self, error: zlib.error) -> None:
        """Go on at the next bytes that begin a member of this kind, and say so.

        Raises:
            DamagedMemberError: there is one.
            zlib.error: there is none.
        """
        rest = bytes(self._member)
        place = 1
        while True:
            place = rest.find(_MAGIC, place)
            if place < 0:
                rest, place = rest[-len(_MAGIC) + 1 :], 0
                data = self._file.read(_READ_BYTES)
                if not data:
                    raise error
                rest += data
            elif len(rest) - place < _READ_BYTES and (data := self._file.read(_READ_BYTES)):
                rest, place = rest[place:] + data, 0
            elif self._is_member(rest[place : place + _READ_BYTES]):
                self._output, self._position = b"", 0
                self._start_member(rest[place:])
                raise DamagedMemberError(str(error)) from error
            else:
                place += 1

    def _is_member(self, compressed: bytes) -> bool:
        try:
            beginning = zlib.decompressobj(wbits=31).decompress(compressed, len(self._opening))
        except zlib.error:
            return False
        return beginning == self._opening
