"""Archives of code, zip (`.whl`, `.jar`) and tar, read member by member as streams. Nothing is ever written to disk.

Archives come from anywhere, so a member is read only after its kind, name and size were looked at, never past
MAX_RECORD_BYTES, and what is wrong with one member costs that member. Refused as a whole is what is cut off, and what
would take memory or time without end:

    MAX_DIRECTORY_BYTES   zip: its list of members, which has to be held
    MAX_HEADER_BYTES      tar: an extended header of a member, which is held too
    MAX_MEMBERS           members
    MAX_TOTAL_BYTES       decompressed bytes, and MAX_RATIO times the size of the archive once there are FREE_BYTES
"""

import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import BinaryIO, Self

import zstandard

from data_pipelines.account import Account
from data_pipelines.sources.compressed import MAX_RECORD_BYTES, open_decompressed
from data_pipelines.sources.storage import open_file
from llmtrain.errors import DataError

MAX_DIRECTORY_BYTES = 64_000_000
"""Of the list of members of a zip archive, some 100 bytes each: half a million files (Linux has 90,000)."""
MAX_HEADER_BYTES = 1_000_000
"""Of one extended header of a tar archive, which is read whole; real ones have some hundred bytes."""
MAX_MEMBERS = 1_000_000
MAX_TOTAL_BYTES = 1 << 40
MAX_RATIO = 200
"""Decompressed bytes per byte of an archive, or of a zip member; source trees reach 4 to 12."""
FREE_BYTES = 100_000_000
"""The ratio of an archive counts from here on: small archives of much the same may be honest."""
_FREE_MEMBER_BYTES = 1_000_000
ZIP_ENDINGS = (".zip", ".whl", ".jar", ".egg")
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".crate")
# What zipfile decompresses of the others (bzip2, LZMA) has no bound but what a member says of its size.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED_MEMBER = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    ValueError,
    RuntimeError,
    OverflowError,
)
_DAMAGE = (*_DAMAGED_MEMBER, OSError, tarfile.TarError, zstandard.ZstdError, struct.error)
_ENTRY, _ENTRY_BYTES, _UTF8_FLAG = b"PK\x01\x02", 46, 0x800
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_EXTENDED_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, *_LONG_NAMES)

Member = tuple[str, bytes]
"""Name and content."""


def read_members(
    name: str, size: int, is_wanted: Callable[[str], bool], account: Account, share: tuple[int, int] = (0, 1)
) -> Iterator[Member]:
    """Wanted members of an archive in their order.

    Args:
        name: path or address.
        size: bytes; 0 where it is not known.
        is_wanted: says by its name whether a member counts; others are skipped in silence.
        account: counts wanted members that cannot be read, by reason.
        share: number of a share of the members, and how many shares there are; a tar archive has one.

    Raises:
        DataError: it is cut off, damaged as a whole, or too large.
    """
    read = _read_tar if is_tar(name) else _read_zip
    try:
        yield from read(name, size, is_wanted, account, share)
    except _EndlessError as error:
        raise DataError(f"{name}: {error}. Leave it out of paths.") from error
    except _DAMAGE as error:
        told = str(error).rstrip(".") or type(error).__name__
        raise DataError(f"{name}: damaged or cut off: {told}. Fetch it again, or leave it out of paths.") from error


def is_archive(name: str) -> bool:
    """Whether a name ends as that of an archive."""
    return name.lower().endswith((*ZIP_ENDINGS, *TAR_ENDINGS))


def is_tar(name: str) -> bool:
    """Whether a name ends as that of a tar archive."""
    return name.partition("::")[0].partition("?")[0].lower().endswith(TAR_ENDINGS)


class _EndlessError(Exception):
    """The archive is one that would take memory or time without end."""


def _read_zip(
    name: str, size: int, is_wanted: Callable[[str], bool], account: Account, share: tuple[int, int]
) -> Iterator[Member]:
    with closing(_DirectoryGuard(open_file(name, is_seekable=True))) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        _refuse_many(len(members))
        _refuse_growth(sum(member.file_size for member in members), size)
        number, count = share
        for member in members[len(members) * number // count : len(members) * (number + 1) // count]:
            if member.is_dir() or not is_wanted(member.filename):
                continue
            content = _read_zip_member(archive, member)
            if isinstance(content, str):
                account.drop(content, f"{name}: {member.filename}")
            else:
                yield member.filename, content


def _read_zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | str:
    """What it holds, or why it is left out."""
    mode = member.external_attr >> 16
    if is_unsafe(member.filename):
        return "unsafe_path"
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "special_file"
    if member.flag_bits & 1:
        return "encrypted"
    if member.compress_type not in _COMPRESSIONS:
        return "unknown_compression"
    if member.file_size > MAX_RECORD_BYTES:
        return "too_large"
    if member.file_size > _FREE_MEMBER_BYTES and member.file_size > MAX_RATIO * member.compress_size:
        return "compression_bomb"
    try:
        with archive.open(member) as stream:
            content = stream.read(MAX_RECORD_BYTES + 1)
    except UnicodeDecodeError:
        return "not_utf8_name"
    except _DAMAGED_MEMBER:
        return "damaged_member"
    return content if len(content) == member.file_size else "damaged_member"


def _read_tar(
    name: str, size: int, is_wanted: Callable[[str], bool], account: Account, _: tuple[int, int]
) -> Iterator[Member]:
    stream = _GrowthGuard(open_decompressed(name), size)
    with (
        closing(stream),
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictHeader, encoding="utf-8") as archive,
    ):
        count = 0
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # else it holds the headers of all
            count += 1
            _refuse_many(count)
            if member.isdir() or not is_wanted(member.name):
                continue
            reason = _find_tar_fault(member)
            file = archive.extractfile(member) if reason is None else None
            if reason is not None or file is None:
                account.drop(reason or "special_file", f"{name}: {member.name}")
                continue
            yield member.name.removeprefix("./"), file.read()


def _find_tar_fault(member: tarfile.TarInfo) -> str | None:
    if is_unsafe(member.name):
        return "unsafe_path"
    if member.issym() or member.islnk():
        return "link"
    if not member.isreg() or member.issparse():
        return "special_file"
    return "too_large" if member.size > MAX_RECORD_BYTES else None


def is_unsafe(name: str) -> bool:
    """Whether a name points out of the archive. Nothing is written there; but who made it meant no good."""
    parts = name.replace("\\", "/").split("/")
    return not name or parts[0] == "" or ".." in parts or (len(parts[0]) == 2 and parts[0][1] == ":")


def _refuse_many(count: int) -> None:
    if count > MAX_MEMBERS:
        raise _EndlessError(f"it has more than {MAX_MEMBERS:,} members")


def _refuse_growth(decompressed: int, size: int) -> None:
    limit = min(MAX_TOTAL_BYTES, max(FREE_BYTES, MAX_RATIO * size)) if size else MAX_TOTAL_BYTES
    if decompressed > limit:
        raise _EndlessError(
            f"{size:,} bytes become more than {limit:,}: more than {MAX_RATIO} times as many, or too many in all"
        )


class _StrictHeader(tarfile.TarInfo):
    """A header of a tar archive. tarfile takes a damaged one, and the end of the file, for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0:
            raise tarfile.ReadError("a member has a negative size")
        if header.type in _EXTENDED_HEADERS and header.size > MAX_HEADER_BYTES:
            raise _EndlessError(f"the header of a member says that it has {header.size:,} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE and buf[482]:
            raise _EndlessError("a sparse member has a list of holes without end")
        return header

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # a block of zeros is the end
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no header of a member and no end mark where one should be: {error}") from error


class _GrowthGuard(io.RawIOBase):
    """A decompressed stream that refuses to become endless."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._count = file, size, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._count += len(data)
        _refuse_growth(self._count, self._size)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


class _DirectoryGuard(io.RawIOBase):
    """A zip archive, whose directory zipfile reads in one piece.

    It may not be larger than MAX_DIRECTORY_BYTES. Names that say they are UTF-8 and are not, on which zipfile fails
    as a whole, are read as code page 437, which has a character for every byte; it then fails on these members alone.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        if size > max(MAX_DIRECTORY_BYTES, MAX_RECORD_BYTES + 1):
            raise _EndlessError(f"its directory has {size:,} bytes, more than {MAX_DIRECTORY_BYTES:,}")
        data = self._file.read(size)
        return _mend_names(data) if data.startswith(_ENTRY) else data

    def close(self) -> None:
        self._file.close()
        super().close()


def _mend_names(directory: bytes) -> bytes:
    mended, place = bytearray(directory), 0
    while directory[place : place + 4] == _ENTRY and place + _ENTRY_BYTES <= len(directory):
        flags, name, extra, comment = struct.unpack_from("<8xH18x3H", directory, place)
        try:
            directory[place + _ENTRY_BYTES : place + _ENTRY_BYTES + name].decode(
                "utf-8" if flags & _UTF8_FLAG else "cp437"
            )
        except UnicodeDecodeError:
            struct.pack_into("<H", mended, place + 8, flags & ~_UTF8_FLAG)
        place += _ENTRY_BYTES + name + extra + comment
    return bytes(mended)
