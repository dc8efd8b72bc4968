"""Archives as they come, and archives made to do harm."""

import bz2
import contextlib
import gzip
import io
import lzma
import stat
import struct
import sysconfig
import tarfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import zstandard

from data_pipelines.account import Account
from data_pipelines.document import Document
from data_pipelines.extract import READERS
from data_pipelines.sources import code, code_archive
from data_pipelines.sources.code_archive import is_unsafe, read_members
from llmtrain.config.corpus import CodeSource
from llmtrain.errors import DataError

STDLIB = Path(sysconfig.get_paths()["stdlib"])
PACKAGES = ("json", "email", "asyncio")
CODE = b"print('stays')\n"


def read(path: Path | str, **settings: object) -> tuple[list[Document], Counter[str]]:
    account = Account()
    source = CodeSource.model_validate({"kind": "code", "paths": [str(path)], **settings})
    units = code.list_units("code", source)
    return [document for unit in units for document in READERS[unit.kind](unit, account)], account.dropped


def write_zip(path: Path, members: Iterable[tuple[zipfile.ZipInfo | str, bytes]], method: int = 8) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, content in members:
            archive.writestr(name, content)
    return path


def write_tar(members: Iterable[tuple[tarfile.TarInfo | str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zip_info(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def tar_info(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def texts(documents: list[Document]) -> list[str]:
    return [document.text for document in documents]


@pytest.fixture(scope="module")
def library() -> list[tuple[str, bytes]]:
    """Packages of the standard library."""
    files = [file for package in PACKAGES for file in sorted((STDLIB / package).rglob("*.py"))]
    return [(file.relative_to(STDLIB).as_posix(), file.read_bytes()) for file in files]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.tar", bytes),
        ("a.tar.gz", gzip.compress),
        ("a.tgz", gzip.compress),
        ("a.tar.bz2", bz2.compress),
        ("a.tar.xz", lzma.compress),
        ("a.tar.zst", zstandard.compress),
        ("a.tar.zst", lambda data: zstandard.compress(data[:99_999]) + zstandard.compress(data[99_999:])),
        ("a.tar.xz", lambda data: lzma.compress(data[:99_999]) + b"\0" * 8 + lzma.compress(data[99_999:])),
    ],
)
def test_tar_archives_give_what_the_tree_gives(
    name: str, pack: Callable[[bytes], bytes], library: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(pack(write_tar(library)))
    documents, dropped = read(tmp_path / name, licence="PSF-2.0")
    expected = [document for package in PACKAGES for document in read(STDLIB / package)[0]]
    assert sorted(texts(documents)) == sorted(texts(expected))
    assert documents[0].origin == f"{name}/json/__init__.py"
    assert {(document.licence, document.language) for document in documents} == {("PSF-2.0", "python")}
    assert not dropped
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("ending", [".zip", ".whl", ".jar"])
def test_zip_archives_give_what_the_tree_gives(ending: str, library: list[tuple[str, bytes]], tmp_path: Path) -> None:
    path = write_zip(tmp_path / f"a{ending}", library)
    documents, dropped = read(path)
    assert texts(documents) == [content.decode() for _, content in library]
    assert not dropped
    assert sorted(tmp_path.iterdir()) == [path]


def test_shares_of_a_large_zip_archive_are_its_members_in_order(
    library: list[tuple[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "_SHARE_BYTES", 50_000)
    path = write_zip(tmp_path / "a.zip", [*library, ("COPYING", b"Apache License, Version 2.0")])
    units = code.list_units("code", CodeSource(kind="code", paths=[str(path)]))
    assert len(units) == path.stat().st_size // 50_000 > 2
    assert sum(unit.describe_inputs()[0][1] for unit in units) == path.stat().st_size
    documents, _ = read(path)
    assert texts(documents) == [content.decode() for _, content in library]
    assert {document.licence for document in documents} == {"Apache-2.0"}


def test_archives_behind_addresses_are_read(library: list[tuple[str, bytes]], tmp_path: Path) -> None:
    inner = tmp_path / "a.tar.gz"
    inner.write_bytes(gzip.compress(write_tar(library)))
    outer = write_zip(tmp_path / "outer.zip", [("folder/a.tar.gz", inner.read_bytes())])
    documents, _ = read(f"zip://folder/a.tar.gz::{outer}")
    assert len(documents) == len(library)
    assert documents[0].origin == "a.tar.gz/json/__init__.py"
    documents, _ = read(f"zip://folder/*.py::{write_zip(tmp_path / 'b.zip', [('folder/a.py', CODE)])}")
    assert texts(documents) == [CODE.decode()]


HOSTILE_NAMES = ["../a.py", "/etc/a.py", "a/../../b.py", "C:/a.py", "..\\a.py", "\\a.py"]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_that_point_out_of_the_archive_are_counted(name: str, tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", [(name, b"x = 1\n"), ("good.py", CODE)])
    (tmp_path / "a.tar").write_bytes(write_tar([(name, b"x = 1\n"), ("good.py", CODE)]))
    for archive in ("a.zip", "a.tar"):
        documents, dropped = read(tmp_path / archive)
        assert texts(documents) == [CODE.decode()]
        assert dropped == {"unsafe_path": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "a.zip"]
    assert is_unsafe(name)
    assert not is_unsafe("a..b/..c.py")


def test_links_and_devices_are_counted(tmp_path: Path) -> None:
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
    members: list[tuple[tarfile.TarInfo | str, bytes]] = [
        (tar_info(f"{number}.py", kind, "/etc/passwd"), b"") for number, kind in enumerate(kinds)
    ]
    (tmp_path / "a.tar").write_bytes(write_tar([*members, ("good.py", CODE)]))
    documents, dropped = read(tmp_path / "a.tar")
    assert texts(documents) == [CODE.decode()]
    assert dropped == {"link": 2, "special_file": 3}
    modes = (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO)
    special = [(zip_info(f"{number}.py", mode), b"/etc/passwd") for number, mode in enumerate(modes)]
    documents, dropped = read(write_zip(tmp_path / "a.zip", [*special, ("good.py", CODE)]))
    assert texts(documents) == [CODE.decode()]
    assert dropped == {"link": 1, "special_file": 2}


def test_encrypted_damaged_and_unknown_members_of_a_zip_archive_are_counted(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [(f"{name}.py", CODE) for name in ("good", "secret", "damaged", "lzma")], 0)
    content = bytearray(path.read_bytes())
    place = content.index(CODE, content.index(b"damaged.py"))
    content[place] ^= 1
    set_in_directory(content, b"secret.py", 8, 1)
    set_in_directory(content, b"lzma.py", 10, zipfile.ZIP_LZMA)
    path.write_bytes(content)
    documents, dropped = read(path)
    assert texts(documents) == [CODE.decode()]
    assert dropped == {"encrypted": 1, "damaged_member": 1, "unknown_compression": 1}


@pytest.mark.parametrize("size", [3, 1_000])
def test_a_member_that_lies_about_its_size_is_damaged(size: int, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("liar.py", CODE), ("good.py", CODE)])
    content = bytearray(path.read_bytes())
    set_in_directory(content, b"liar.py", 24, size)
    path.write_bytes(content)
    documents, dropped = read(path)
    assert texts(documents) == [CODE.decode()]
    assert dropped == {"damaged_member": 1}


def set_in_directory(archive: bytearray, name: bytes, field: int, value: int) -> None:
    entry = archive.rindex(name) - 46
    assert archive[entry : entry + 4] == b"PK\x01\x02"
    struct.pack_into("<H", archive, entry + field, value)


def test_bombs_and_large_members_are_counted_without_being_unpacked(tmp_path: Path) -> None:
    zeros = bytes(65_000_000)
    path = write_zip(tmp_path / "a.zip", [("bomb.py", zeros[:5_000_000]), ("large.py", zeros), ("good.py", CODE)])
    documents, dropped = read(path)
    assert texts(documents) == [CODE.decode()]
    assert dropped == {"compression_bomb": 1, "too_large": 1}
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(write_tar([("large.py", zeros), ("good.py", CODE)])))
    documents, dropped = read(tmp_path / "a.tar.gz")
    assert texts(documents) == [CODE.decode()]
    assert dropped == {"too_large": 1}


def test_an_archive_that_grows_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_archive, "FREE_BYTES", 1_000_000)
    zeros = bytes(2_000_000)
    write_zip(tmp_path / "a.zip", [("a.txt", zeros), ("good.py", CODE)])
    for ending, pack in ((".gz", gzip.compress), (".xz", lzma.compress), (".zst", zstandard.compress)):
        (tmp_path / f"a.tar{ending}").write_bytes(pack(write_tar([("a.txt", zeros), ("good.py", CODE)])))
    for path in tmp_path.iterdir():
        with pytest.raises(DataError, match=r"bytes become more than 1,000,000: .*Leave it out of paths"):
            read(path)


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_archive, "MAX_MEMBERS", 3)
    members = [(f"{number}.py", CODE) for number in range(4)]
    (tmp_path / "a.tar").write_bytes(write_tar(members))
    for path in (write_zip(tmp_path / "a.zip", members), tmp_path / "a.tar"):
        with pytest.raises(DataError, match=r"it has more than 3 members\. Leave it out of paths"):
            read(path)


def test_a_directory_and_headers_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [("a" * 100 + f"{number}.py", CODE) for number in range(20)]
    path = write_zip(tmp_path / "a.zip", members)
    monkeypatch.setattr(code_archive, "MAX_DIRECTORY_BYTES", 1_000)
    monkeypatch.setattr(code_archive, "MAX_RECORD_BYTES", 1_000)
    with pytest.raises(DataError, match=r"its directory has [\d,]+ bytes, more than 1,000"):
        read(path)
    long_name = tar_info("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    (tmp_path / "a.tar").write_bytes(write_tar([(long_name, b"a" * 2_000_000), ("good.py", CODE)]))
    with pytest.raises(DataError, match=r"the header of a member says that it has 2,000,000 bytes"):
        read(tmp_path / "a.tar")


def test_a_sparse_member_is_refused_or_counted(tmp_path: Path) -> None:
    content = bytearray(write_tar([(tar_info("a.py", tarfile.GNUTYPE_SPARSE), b""), ("good.py", CODE)]))
    content[483:495] = b"77777777777\0"
    (tmp_path / "a.tar").write_bytes(sign(content))
    documents, dropped = read(tmp_path / "a.tar")
    assert texts(documents) == [CODE.decode()]
    assert dropped == {"special_file": 1}
    content[482] = 1
    (tmp_path / "a.tar").write_bytes(sign(content))
    with pytest.raises(DataError, match="a sparse member has a list of holes without end"):
        read(tmp_path / "a.tar")


def sign(archive: bytearray) -> bytearray:
    archive[148:156] = b" " * 8
    archive[148:156] = b"%06o\0 " % sum(archive[:512])
    return archive


def test_names_that_are_no_utf8_do_not_end_the_archive(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("é.py", b"x = 1\n"), ("good.py", CODE)])
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    documents, dropped = read(path)
    assert texts(documents) == [CODE.decode()]
    assert dropped == {"not_utf8_name": 1}
    (tmp_path / "a.tar").write_bytes(write_tar([("\udcff.py", b"x = 1\n"), ("good.py", CODE)]))
    documents, _ = read(tmp_path / "a.tar")
    assert [document.origin for document in documents] == ["a.tar/\udcff.py", "a.tar/good.py"]


def test_archives_in_an_archive_are_not_opened(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "inner.zip", [("hidden.py", CODE)]).read_bytes()
    documents, dropped = read(write_zip(tmp_path / "a.zip", [("inner.zip", inner), ("good.py", CODE)]), extensions=[""])
    assert texts(documents) == [CODE.decode()]
    assert dropped == {"binary": 1}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.tar.zst"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_an_archive_that_is_cut_off_is_refused(
    name: str, share: float, library: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    packs: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": zstandard.compress,
    }
    tar = packs.get(Path(name).suffix, bytes)(write_tar(library))
    content = tar if ".tar" in name else write_zip(tmp_path / "whole.zip", library).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=rf"{name}: damaged or cut off: .*Fetch it again, or leave it out of paths"):
        read(tmp_path / name)


def test_a_tar_archive_cut_off_between_members_or_damaged_in_a_header_is_refused(tmp_path: Path) -> None:
    content = write_tar([("a.py", CODE), ("b.py", CODE)])
    for broken in (content[:1024], content[:1500], content[:1024] + b"\1" + content[1025:]):
        (tmp_path / "a.tar").write_bytes(broken)
        with pytest.raises(DataError, match=r"cut off: (no header of a member and no end mark|unexpected end)"):
            read(tmp_path / "a.tar")


def test_every_flipped_byte_of_an_archive_is_survived(tmp_path: Path) -> None:
    members = [("a/b.py", CODE), ("c.py", b"x = 1\n" * 30)]
    for name, content in {
        "a.zip": write_zip(tmp_path / "a.zip", members).read_bytes(),
        "a.tar": write_tar(members)[:2560],
    }.items():
        for place in range(0, len(content), 3):
            (tmp_path / name).write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
            found: list[tuple[str, bytes]] = []
            with contextlib.suppress(DataError):
                found += read_members(str(tmp_path / name), len(content), lambda _: True, Account())
            assert len(found) <= 2
