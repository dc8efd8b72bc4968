"""Code: source trees, archives and single files. Records of code are in `code_records`.

    list_units     a tree -> units of neighbouring files under one licence; an archive -> shares of its members
    read_files     files of a tree                 read_archive   members of an archive
    to_document    one file -> a document, or the reason why there is none

Only the work tree of a checkout counts. Files that nobody wrote there, and those whose licence is not wanted, are
counted and left out.
"""

import fnmatch
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from data_pipelines.account import Account
from data_pipelines.document import Document
from data_pipelines.sources.code_archive import is_archive, is_tar, read_members
from data_pipelines.sources.code_faults import (
    find_fault,
    find_fault_of_name,
    is_data,
    is_repository_file,
    is_vendored,
)
from data_pipelines.sources.code_language import LANGUAGES, find_language, may_be_language
from data_pipelines.sources.code_licence import (
    UNKNOWN,
    NearestLicence,
    find_archive_licences,
    find_folder_licence,
    find_header,
    find_unknown,
    is_allowed,
)
from data_pipelines.sources.documents import RECORD_ENDINGS
from data_pipelines.sources.storage import StoredFile, is_address, strip_address, to_path
from data_pipelines.sources.unit import (
    CodeRules,
    Unit,
    expand_paths,
    find_files,
    group_files,
    list_files,
    look_at,
    read_file,
    refuse_none,
    spell,
)
from llmtrain.config.corpus import CodeSource
from llmtrain.errors import ConfigError

_SHARE_BYTES, _MAX_SHARES = 16_000_000, 64


def list_units(name: str, source: CodeSource) -> list[Unit]:
    """Units of neighbouring files, each of one tree.

    A symbolic link to a file that is there too adds nothing; one that leads out of its tree is counted when it is read.

    Raises:
        ConfigError: an extension is a glob, or a language or a licence is not known.
        DataError: a path matches nothing, or a storage does not answer.
    """
    _check_names(name, source)
    rules = CodeRules(
        tuple(source.extensions),
        tuple(source.languages),
        tuple(source.exclude),
        tuple(source.licences),
        source.keep_vendored,
    )
    endings = ("",) if rules.languages else rules.extensions
    units = []
    for path in source.paths:
        if is_address(path):
            root = re.split(r"[*?\[]", strip_address(path))[0].rpartition("/")[0] + "/"
            found = find_files(name, [path], endings)
            packed = [file for file in found if _is_packed(file.name, rules)]
            units += [unit for file in packed for unit in _list_packed(file, source.licence, rules)]
            loose = [file for file in found if file not in packed and is_wanted_path(_relate(file.name, root), rules)]
            units += group_files("code", root, loose, source.licence, rules=rules)
            continue
        for place in expand_paths(name, [to_path(path)]):
            if place.is_file() and _is_packed(str(place), rules):
                file = look_at(place.resolve(), spell(path, place, place.resolve()))
                units += _list_packed(file, source.licence, rules)
            else:
                units += _list_tree(path, place, endings, source.licence, rules)
    wanted = f"languages {', '.join(rules.languages)}" if rules.languages else f"endings {', '.join(rules.extensions)}"
    excluded = f", but for {', '.join(rules.exclude)}" if rules.exclude else ""
    return refuse_none(name, units, f"those below a folder have the {wanted}{excluded}")


def read_files(unit: Unit, account: Account) -> Iterator[Document]:
    """A document per file.

    Raises:
        DataError: a storage does not answer.
    """
    for name in unit.files:
        path = _relate(name, unit.root)
        is_outside = _is_outside(name, unit.root)
        origin = name if is_address(name) or is_outside else f"{Path(unit.root).name}/{path}"
        reason = "link" if is_outside else find_fault_of_path(path, unit.rules)
        if reason is not None:
            account.drop(reason, origin)
            continue
        content = read_file(name, account)
        if content is not None:
            for document in to_documents(path, content, origin, unit.licence, unit.rules, account):
                yield replace(document, place=unit.label(name))


def read_archive(unit: Unit, account: Account) -> Iterator[Document]:
    """A document per wanted member of a share of an archive.

    Raises:
        DataError: the archive is damaged, cut off, or would take memory or time without end.
    """
    (name,) = unit.files
    size = unit.listed[0].size if unit.listed else Path(name).stat().st_size
    label = strip_address(name).rpartition("/")[2]
    rules, folders = unit.rules, find_archive_licences(name, size)
    nearest = NearestLicence(lambda folder: folders.get(folder, ""), unit.licence)

    def is_wanted(path: str) -> bool:
        if not is_wanted_path(path, rules):
            return False
        reason = find_fault_of_path(path, rules)
        if reason is not None:
            account.drop(reason, f"{label}/{path}")
        return reason is None

    for path, content in read_members(name, size, is_wanted, account, unit.share):
        for document in to_documents(path, content, f"{label}/{path}", nearest.find(path), rules, account):
            yield replace(document, place=f"{unit.label(name)}/{path}")


def find_fault_of_path(path: str, rules: CodeRules) -> str | None:
    """Why a file is left out, by its path alone."""
    if not rules.keep_vendored and is_vendored(path):
        return "vendored"
    return find_fault_of_name(path)


def to_documents(
    path: str, content: bytes, origin: str, licence: str, rules: CodeRules, account: Account, language: str = ""
) -> Iterator[Document]:
    """The document of a file, if there is one; else the reason is counted.

    Args:
        path: inside its tree, archive or repository.
        content: what it holds.
        origin: of the document.
        licence: of the folder it is in.
        rules: of its source.
        account: counts the reasons.
        language: where something else than name and content tells it.
    """
    reason = find_fault(content)
    if reason is None:
        language = language or find_language(path, content)
        licence = find_header(content) or licence
        if rules.languages and not language:
            return  # its name has no ending, and it is no code
        if rules.languages and language not in rules.languages:
            reason = "other_language"  # which only its content told
        elif is_data(path, language, rules.extensions) and language not in rules.languages:
            reason = "data"
        elif rules.licences and not is_allowed(licence, frozenset(rules.licences)):
            reason = "licence"
    if reason is not None:
        account.drop(reason, origin)
        return
    yield Document(content.decode("utf-8-sig"), origin, licence, language)


def _check_names(name: str, source: CodeSource) -> None:
    if globs := [ending for ending in source.extensions if set(ending) & set("*?[")]:
        raise ConfigError(
            f"corpus.sources.{name}.extensions: '{globs[0]}' is a glob. Write how names end: "
            f"'{globs[0].rpartition('*')[2]}'."
        )
    if unknown := sorted(set(source.languages) - LANGUAGES):
        raise ConfigError(
            f"corpus.sources.{name}.languages: {unknown} is not known. Allowed: {', '.join(sorted(LANGUAGES))}."
        )
    if not_spdx := find_unknown(source.licences):
        raise ConfigError(
            f"corpus.sources.{name}.licences: {not_spdx} is no SPDX licence. Write them as https://spdx.org/licenses "
            f"does (MIT, Apache-2.0, BSD-3-Clause, ...); '{UNKNOWN}' stands for files without any."
        )


def _list_tree(entry: str, place: Path, endings: Sequence[str], licence: str, rules: CodeRules) -> list[Unit]:
    """Units of files under one licence each, of one place that an entry of `paths` means."""
    root = place.resolve()
    excluded = CodeRules(exclude=("site-packages/*",)) if entry == "stdlib:" else CodeRules()
    nearest = NearestLicence(lambda folder: find_folder_licence(root, folder), licence)
    found: list[tuple[str, Path]] = []
    for file in list_files([root], endings):
        path = _relate(str(file), str(root))
        is_named = file == root and not rules.languages
        if (is_named or is_wanted_path(path, rules)) and not _is_excluded(path, excluded.exclude):
            # Vendored files are not read, and have licences by the hundred.
            is_read = rules.keep_vendored or not is_vendored(path)
            found.append((nearest.find(path) if is_read or not found else found[-1][0], file))
    groups = itertools.groupby(found, key=lambda row: row[0])
    return [
        unit
        for own, rows in groups
        for unit in group_files(
            "code", str(root), [look_at(file, spell(entry, place, file)) for _, file in rows], own, rules=rules
        )
    ]


def _list_packed(file: StoredFile, licence: str, rules: CodeRules) -> list[Unit]:
    """Units of one archive or file of records. Members of a zip archive can be reached one by one, so it has shares."""
    is_records = not is_archive(strip_address(file.name))
    kind = "code_records" if is_records else "code_archive"
    count = 1 if is_records or is_tar(file.name) else max(1, min(_MAX_SHARES, file.size // _SHARE_BYTES))
    return [
        Unit(kind, "", (file.name,), licence, listed=(file,), rules=rules, share=(number, count))
        for number in range(count)
    ]


def _is_packed(name: str, rules: CodeRules) -> bool:
    plain = strip_address(name)
    is_code = any(ending and plain.endswith(ending) for ending in rules.extensions) and not rules.languages
    return not is_code and (is_archive(plain) or plain.lower().endswith(RECORD_ENDINGS))


def is_wanted_path(path: str, rules: CodeRules) -> bool:
    """Whether a file counts, as far as its path tells."""
    if is_repository_file(path) or _is_excluded(path, rules.exclude):
        return False
    if rules.languages:
        return may_be_language(path, frozenset(rules.languages))
    return path.endswith(rules.extensions)


def _is_excluded(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def _is_outside(name: str, root: str) -> bool:
    """Whether a link led out of its tree: what it leads to is no part of the project, nor under its licence."""
    return not is_address(name) and not Path(name).is_relative_to(root)


def _relate(name: str, root: str) -> str:
    """The path of a file inside its tree."""
    if is_address(name):
        return strip_address(name).removeprefix(root)
    file = Path(name)
    return file.relative_to(root).as_posix() if file.is_relative_to(root) and file != Path(root) else file.name
