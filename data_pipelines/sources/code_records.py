"""Code that already is records: parquet and JSONL as The Stack has them, one file of a repository a record.

text       content, text or code
path       path, max_stars_repo_path or file_path; without one `ext`, `lang` or `language` tell the language
licence    max_stars_repo_licenses, detected_licenses, licenses or license; several all count
origin     repository (max_stars_repo_name, repo_name, repo) and path
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from data_pipelines.account import Account
from data_pipelines.document import Document
from data_pipelines.sources.code import find_fault_of_path, is_wanted_path, to_documents
from data_pipelines.sources.code_language import find_language, name_language
from data_pipelines.sources.compressed import MAX_RECORD_BYTES
from data_pipelines.sources.documents import read_json
from data_pipelines.sources.parquet import PARQUET, read_parquet
from data_pipelines.sources.storage import strip_address
from data_pipelines.sources.unit import CodeRules, Unit
from llmtrain.errors import DataError

_TEXTS = ("content", "text", "code")
_PATHS = ("path", "max_stars_repo_path", "file_path")
_LANGUAGES = ("lang", "language", "programming_language")
_ENDINGS = ("ext", "extension")
_REPOSITORIES = ("max_stars_repo_name", "repo_name", "repo")
_LICENCES = ("max_stars_repo_licenses", "detected_licenses", "licenses", "license")
_FIELDS = (*_TEXTS, *_PATHS, *_LANGUAGES, *_ENDINGS, *_REPOSITORIES, *_LICENCES)


def read_code_records(unit: Unit, account: Account) -> Iterator[Document]:
    """A document per record.

    Raises:
        DataError: the file is damaged, or its records hold no text under a known name.
    """
    (name,) = unit.files
    is_parquet = strip_address(name).lower().endswith(PARQUET)
    records = read_parquet(name, _FIELDS, is_optional=True) if is_parquet else read_json(name)
    number = -1
    for number, record in enumerate(records):
        label = f"{name.rpartition('/')[2]}#{number}"
        if record is None:
            account.drop("too_large", label)
            continue
        if number == 0 and not any(field in record for field in _TEXTS):
            raise DataError(
                f"{name}: the first record has none of {', '.join(_TEXTS)}. It has "
                f"{', '.join(sorted(record)) or 'none'}: rename the field of the text, or read it as `kind: documents` "
                "with text_field."
            )
        for document in _read_record(record, label, unit, account):
            yield replace(document, place=f"{unit.label(name)}#{number}")
    if number < 0:
        account.drop("empty_file", name)  # parts without a record are ordinary


def _read_record(record: dict[str, Any], name: str, unit: Unit, account: Account) -> Iterator[Document]:
    text, path = record.get(next((field for field in _TEXTS if field in record), "")), _find(record, _PATHS)
    language = name_language(_find(record, _LANGUAGES)) if not path else ""
    ending = _find(record, _ENDINGS).lstrip(".")
    path = path.lstrip("/") or (f"{name}.{ending}" if ending else "")
    if not isinstance(text, str):
        account.drop("not_text", name)
    elif len(text) > MAX_RECORD_BYTES:
        account.drop("too_large", name)
    elif not _is_asked_for(path, language, text, unit.rules):
        account.drop("other_language", path or name)
    elif reason := find_fault_of_path(path, unit.rules):
        account.drop(reason, path)
    else:
        repository = _find(record, _REPOSITORIES)
        origin = f"{repository}/{path}" if repository and path else path or name
        licence = _find_licence(record) or unit.licence
        # A lone surrogate, which JSON can hold, is no text that UTF-8 could hold.
        content = text.encode("utf-8", "surrogatepass")
        yield from to_documents(path or name, content, origin, licence, unit.rules, account, language)


def _is_asked_for(path: str, language: str, text: str, rules: CodeRules) -> bool:
    if path and not is_wanted_path(path, rules):
        return False
    language = language or find_language(path, text[:10_000].encode("utf-8", "replace"))
    if rules.languages:
        return language in rules.languages
    return bool(path) or not language or any(find_language(f"a{ending}") == language for ending in rules.extensions)


def _find(record: dict[str, Any], fields: tuple[str, ...]) -> str:
    return next((value for field in fields if isinstance(value := record.get(field), str) and value), "")


def _find_licence(record: dict[str, Any]) -> str:
    for field in _LICENCES:
        value = record.get(field)
        names = [name for name in value if isinstance(name, str) and name] if isinstance(value, list) else [value]
        if names and all(isinstance(name, str) and name for name in names):
            return " AND ".join(dict.fromkeys(map(str, names)))
    return ""
