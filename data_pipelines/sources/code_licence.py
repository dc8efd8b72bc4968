"""The licence of a file of code: its `SPDX-License-Identifier`, else the nearest licence file above it.

Licences are SPDX expressions (ISO/IEC 5962, annex D). Of the text of a licence file, words tell the licence; whether a
GNU licence means "only" or "or later" is not in it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from data_pipelines.account import Account
from data_pipelines.sources.code_archive import read_members

UNKNOWN = "unknown"
_MAX_LICENCE_BYTES = 200_000
_LICENCE_NAME = re.compile(r"(?i)^(?:license|licence|copying|unlicense)(?:[-_.][\w.+-]+)?$")
_NO_LICENCE_ENDINGS = (".py", ".go", ".rs", ".java", ".c", ".h", ".js", ".ts", ".html", ".json", ".xml", ".spdx", ".rb")
# Of what is found, what stands first counts: many files hold the licences of parts below that of the whole.
_WORDS = (
    ("AGPL-3.0", "gnu affero general public license version 3"),
    ("LGPL-3.0", "gnu lesser general public license version 3"),
    ("LGPL-2.1", "gnu lesser general public license version 2.1"),
    ("LGPL-2.0", "gnu library general public license version 2"),
    ("GPL-3.0", "gnu general public license version 3"),
    ("GPL-2.0", "gnu general public license version 2"),
    ("MPL-2.0", "mozilla public license version 2.0"),
    ("MPL-2.0", "mozilla public license, v. 2.0"),
    ("MPL-1.1", "mozilla public license version 1.1"),
    ("GFDL-1.3", "gnu free documentation license version 1.3"),
    ("GFDL-1.2", "gnu free documentation license version 1.2"),
    ("EPL-2.0", "eclipse public license - v 2.0"),
    ("EPL-1.0", "eclipse public license - v 1.0"),
    ("CDDL-1.0", "common development and distribution license (cddl) version 1.0"),
    ("EUPL-1.2", "european union public licence v. 1.2"),
    ("PSF-2.0", "python software foundation license version 2"),
    ("Artistic-2.0", "the artistic license 2.0"),
    ("Apache-2.0", "apache license"),
    ("Apache-2.0", "version 2.0, january 2004"),
    ("MIT-CMU", "by obtaining, using, and/or copying this software and/or its associated documentation"),
    ("BSL-1.0", "boost software license - version 1.0"),
    ("CC0-1.0", "cc0 1.0 universal"),
    ("Unlicense", "this is free and unencumbered software released into the public domain"),
    ("WTFPL", "do what the fuck you want to public license"),
    ("Zlib", "this software is provided 'as-is', without any express or implied warranty"),
    ("ISC", "permission to use, copy, modify, and/or distribute this software for any purpose with or without fee"),
    ("ISC", "permission to use, copy, modify, and distribute this software for any purpose with or without fee"),
    ("MIT", "permission is hereby granted, free of charge"),
    ("BSD-2-Clause", "redistribution and use in source and binary forms"),
)
_BSD_3_WORDS = ("neither the name", "may not be used to endorse")
_MIT_0_WORDS = "furnished to do so. the software is provided"
_SPDX = re.compile(rb"SPDX-License-Identifier:[ \t]*([A-Za-z0-9 ().+-]+)")
_HEAD_BYTES = 4_000
_TOKEN = re.compile(r"[()]|[^\s()]+")
_VERSIONS = re.compile(r"(?:-only|-or-later|\+)$")


def is_licence_file(path: str) -> bool:
    """Whether its name is that of a file that holds a licence: `LICENSE`, `COPYING.txt`, `LICENSE-MIT`."""
    name = PurePosixPath(path).name
    return bool(_LICENCE_NAME.match(name)) and not name.lower().endswith(_NO_LICENCE_ENDINGS)


def recognise_licence(name: str, text: str) -> str:
    """The SPDX name of a licence by its text; `see NAME` when it is none that is known."""
    words = " ".join(text.lower().split()).replace("license, version", "license version")
    places = [(place, licence) for licence, sign in _WORDS if (place := words.find(sign)) >= 0]
    licence = min(places)[1] if places else f"see {name}"
    if licence == "BSD-2-Clause" and any(sign in words for sign in _BSD_3_WORDS):
        return "BSD-3-Clause"
    return "MIT-0" if licence == "MIT" and _MIT_0_WORDS in words else licence


def join_licences(licences: Iterable[str]) -> str:
    """The licence of a folder with several licence files: `LICENSE-MIT` and `LICENSE-APACHE` leave the choice."""
    found = sorted(set(licences))
    known = [licence for licence in found if not licence.startswith("see ")]
    return " OR ".join(known or found[:1])


def find_header(content: bytes) -> str:
    """The SPDX expression at the beginning of a file; empty when there is none, or none that is valid."""
    match = _SPDX.search(content[:_HEAD_BYTES])
    return _to_expression(match[1].decode()) if match else ""


def _to_expression(text: str) -> str:
    try:
        return str(canonicalize_license_expression(text.strip()))
    except InvalidLicenseExpression:
        return ""


class NearestLicence:
    """Licences of the folders of one tree or archive: that of a folder counts for all below that have none."""

    def __init__(self, find_own: Callable[[str], str], default: str) -> None:
        """Args: `find_own` gives the licence of a folder by its own files, or an empty text; the root is ``""``."""
        self._find_own, self._default = find_own, default
        self._found: dict[str, str] = {}

    def find(self, path: str) -> str:
        """The licence of a file, by the folders above it."""
        folder, below = path.rpartition("/")[0], []
        while folder not in self._found:
            own = self._find_own(folder) or ("" if folder else self._default)
            if own:
                self._found[folder] = own
            else:
                below.append(folder)
                folder = folder.rpartition("/")[0]
        licence = self._found[folder]
        self._found |= dict.fromkeys(below, licence)
        return licence


def find_unknown(licences: Sequence[str]) -> list[str]:
    """Those of an allow-list that are no SPDX names."""
    return [licence for licence in licences if licence != UNKNOWN and not _to_expression(licence)]


def is_allowed(licence: str, allowed: frozenset[str]) -> bool:
    """Whether an SPDX expression permits use under an allow-list: of `OR` one side must, of `AND` both.

    `-only`, `-or-later` and what follows `WITH` (which permits more, never less) are not told apart.
    """
    names = {_reduce(name) for name in allowed}
    tokens = [token for token in _TOKEN.findall(licence) if token]
    try:
        permitted, rest = _judge(tokens, names)
    except (IndexError, RecursionError):
        return False
    return permitted and not rest


def _reduce(name: str) -> str:
    return _VERSIONS.sub("", name.partition(" WITH ")[0]).lower()


def _judge(tokens: list[str], names: set[str]) -> tuple[bool, list[str]]:
    """Of `A OR B`; what comes after it is handed back."""
    permitted, rest = _judge_all(tokens, names)
    while rest and rest[0].upper() == "OR":
        other, rest = _judge_all(rest[1:], names)
        permitted = permitted or other
    return permitted, rest


def _judge_all(tokens: list[str], names: set[str]) -> tuple[bool, list[str]]:
    permitted, rest = _judge_one(tokens, names)
    while rest and rest[0].upper() == "AND":
        other, rest = _judge_one(rest[1:], names)
        permitted = permitted and other
    return permitted, rest


def _judge_one(tokens: list[str], names: set[str]) -> tuple[bool, list[str]]:
    if tokens[0] == "(":
        permitted, rest = _judge(tokens[1:], names)
        return permitted and rest[0] == ")", rest[1:]
    permitted, rest = _reduce(tokens[0]) in names, tokens[1:]
    return (permitted, rest[2:]) if rest and rest[0].upper() == "WITH" else (permitted, rest)


def find_folder_licence(root: Path, folder: str) -> str:
    """The licence of a folder of a tree by its own licence files; an empty text without any."""
    place = root / folder if root.is_dir() else root.parent
    try:
        files = [file for file in place.iterdir() if is_licence_file(file.name) and file.is_file()]
        return join_licences(_recognise_head(file) for file in files)
    except OSError:
        return ""


def find_archive_licences(name: str, size: int) -> dict[str, str]:
    """Licences of the folders of an archive that have licence files.

    Raises:
        DataError: as `read_members`.
    """
    found: dict[str, list[str]] = {}
    for path, content in read_members(name, size, is_licence_file, Account()):
        folder, _, own = path.rpartition("/")
        found.setdefault(folder, []).append(_recognise(own, content))
    return {folder: join_licences(licences) for folder, licences in found.items()}


def _recognise_head(file: Path) -> str:
    with file.open("rb") as stream:
        return _recognise(file.name, stream.read(_MAX_LICENCE_BYTES))


def _recognise(name: str, content: bytes) -> str:
    return recognise_licence(name, content[:_MAX_LICENCE_BYTES].decode("utf-8", "replace"))
