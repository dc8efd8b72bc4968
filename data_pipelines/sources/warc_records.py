r"""Records of a WARC archive, plain or gzip: what is wrong with one costs that one.

Sections of an archive begin with a record: a plain file is one; so is each gzip member that begins with `WARC/`, with
those after it that do not.

    a damaged member         the section is lost, and reading goes on at the next one
    a block too long         ends with its section at the latest; in a file that is one section, a block that holds the
                             beginning of a record is too long, and reading goes on there
    a block too short        no empty line follows; reading goes on at the next line that opens a record

An archive that is cut off, or in which nothing can be read after the damage, is refused. warcio parses headers; its own
iterator isn't used, since it ends in silence at both.
"""

import io
import re
from collections.abc import Iterator
from typing import BinaryIO, cast

from warcio.statusandheaders import StatusAndHeaders, StatusAndHeadersParser

from data_pipelines.account import Account
from data_pipelines.sources.compressed import MAX_RECORD_BYTES
from data_pipelines.sources.gzip_members import DamagedMemberError, GzipMembers
from data_pipelines.sources.storage import open_file

_VERSION = b"WARC/"
_GZIP = b"\x1f\x8b"
_BETWEEN = b"\r\n\r\n"
_NEXT_RECORD = re.compile(_BETWEEN + rb"WARC/1\.\d\r\n")
_NEXT_RECORD_BYTES = 14
_MAX_HEAD_BYTES = 1 << 20
_LINE_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16
_MAX_LENGTH_DIGITS = 15
_HEADERS = StatusAndHeadersParser([], verify=False)

Record = tuple[StatusAndHeaders, bytes]
"""Headers and block."""


def read_records(name: str, account: Account) -> Iterator[Record]:
    """Records of an archive in their order.

    Args:
        name: path or address.
        account: counts those that are damaged or too large.

    Raises:
        EOFError: the archive is cut off.
        ValueError: it holds something else.
        OSError: it cannot be read.
        zlib.error: its compression is damaged, and nothing can be read after that.
    """
    file = cast(io.BufferedReader, open_file(name))
    is_gzip = file.peek(len(_GZIP)).startswith(_GZIP)
    with GzipMembers(file, _VERSION) if is_gzip else file as content:
        yield from _Reader(name, content, account).read()


class _Reader:
    """Reads an archive once."""

    def __init__(self, name: str, content: BinaryIO | GzipMembers, account: Account) -> None:
        self._name, self._account = name, account
        self._members = content if isinstance(content, GzipMembers) else None
        self._content = content
        self._back = io.BytesIO()
        self._number = 0
        self._is_lost = False
        """Whether what is read now belongs to a record that was counted as damaged."""

    def read(self) -> Iterator[Record]:
        is_there = True
        while is_there:
            try:
                yield from self._read_section()
                self._is_lost = False
                is_there = self._members is not None and self._members.next_section()
            except DamagedMemberError:
                self._lose()
                self._back, self._number, self._is_lost = io.BytesIO(), max(self._number, 1), False
        if not self._number:
            raise ValueError("it is empty")

    def _read_section(self) -> Iterator[Record]:
        is_first = True
        while line := self._read_line():
            if line.startswith(_VERSION):
                self._number += 1
                self._is_lost = False
                record = self._read_record(line, is_alone=is_first and self._members is not None)
                is_first = False
                if record == "damaged_record":
                    self._lose()
                elif isinstance(record, str):
                    self._account.drop(record, f"{self._name}#{self._number}")
                else:
                    yield record
            elif not self._number:
                raise ValueError(f"begins with {line[:40]!r}, not with a WARC record")
            elif line.strip():
                self._lose()

    def _lose(self) -> None:
        if not self._is_lost:
            self._account.drop("damaged_record", f"{self._name}#{self._number}")
        self._is_lost = True

    def _read_record(self, line: bytes, *, is_alone: bool) -> Record | str:
        """The record that begins with this line; else why it is left out.

        Args:
            line: its first.
            is_alone: whether a gzip member begins with it, which then most likely ends with it.
        """
        head = self._read_head(is_alone=is_alone)
        if head is None:
            return "damaged_record"
        headers = _HEADERS.parse(io.BytesIO(line + head))
        told = headers.get_header("Content-Length") or ""
        if not (told.isascii() and told.isdecimal()) or len(told) > _MAX_LENGTH_DIGITS:
            return "damaged_record"
        block = self._read_block(int(told), is_alone=is_alone)
        if block is None or not (self._is_alone(block) if is_alone else self._is_ended(block)):
            return "damaged_record"
        return (headers, block) if int(told) <= MAX_RECORD_BYTES else "too_large"

    def _read_head(self, *, is_alone: bool) -> bytes | None:
        """The lines up to an empty one; None when they don't end within reason."""
        lines: list[bytes] = []
        size = 0
        while line := self._read_line():
            lines.append(line)
            size += len(line)
            if not line.strip():
                return b"".join(lines)
            if size > _MAX_HEAD_BYTES:
                return None
        self._refuse_cut("inside the headers of a record", is_alone=is_alone)
        return None

    def _read_block(self, length: int, *, is_alone: bool) -> bytes | None:
        """So many bytes, of those above MAX_RECORD_BYTES the last ones; None when there are fewer."""
        parts: list[bytes] = []
        left, end = length, b""
        while left:
            piece = self._read(min(left, _PIECE_BYTES))
            if not piece:
                self._refuse_cut(f"inside a record of {length:,} bytes", is_alone=is_alone)
                if found := _NEXT_RECORD.search(block := b"".join(parts)):
                    self._push_back(block[found.start() + len(_BETWEEN) :])
                return None
            window = end + piece
            if not is_alone and (found := _NEXT_RECORD.search(window)):
                self._push_back(window[found.start() + len(_BETWEEN) :])
                return None
            left, end = left - len(piece), window[-_NEXT_RECORD_BYTES:]
            if length <= MAX_RECORD_BYTES:
                parts.append(piece)
        return b"".join(parts) or end

    def _is_ended(self, block: bytes) -> bool:
        """Whether a record ends after this block; if not, what is read next may begin one."""
        line = self._read_line()
        if not line.strip():
            return True
        around = line if line.startswith(_VERSION) else block[-_NEXT_RECORD_BYTES:] + line
        found = _NEXT_RECORD.search(around)
        if around is line:
            self._push_back(line)
        elif found:
            self._push_back(around[found.start() + len(_BETWEEN) :])
        return around is line

    def _is_alone(self, block: bytes) -> bool:
        """Whether the record of this block ends its member, or others follow that it does not hold itself."""
        blank = b""
        while (line := self._read_line()) and not line.strip():
            blank = blank + line if len(blank) < len(_BETWEEN) else blank
        if not line:
            return True
        found = _NEXT_RECORD.search(around := block + blank + line)
        is_inside = found is not None and found.start() < len(block)
        self._push_back(around[found.start() + len(_BETWEEN) :] if found and is_inside else line)
        return not is_inside and line.startswith(_VERSION)

    def _refuse_cut(self, where: str, *, is_alone: bool) -> None:
        """Nothing is left of the section: of a member that is whole, a record claimed too much; else it is cut off."""
        if not is_alone and not (self._members is not None and self._members.is_next_waiting):
            raise EOFError(f"it ends {where}")

    def _read(self, size: int) -> bytes:
        return self._back.read(size) or self._content.read(size)

    def _read_line(self) -> bytes:
        line = self._back.readline(_LINE_BYTES)
        is_whole = line.endswith(b"\n") or self._back.tell() < len(self._back.getbuffer())
        return line if is_whole else line + self._content.readline(_LINE_BYTES)

    def _push_back(self, data: bytes) -> None:
        end = self._back.tell()
        start = end - len(data)
        if start >= 0 and self._back.getbuffer()[start:end] == data:
            self._back.seek(start)  # megabytes may follow, which many records that lie must not copy each
        else:
            self._back = io.BytesIO(data + self._back.read())
