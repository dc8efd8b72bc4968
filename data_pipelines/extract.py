"""One unit of raw input -> one file of cleaned documents, and the account of what happened to it. Runs in a worker."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_pipelines.account import Account
from data_pipelines.cleaning.mend import mend
from data_pipelines.cleaning.steps import build_steps, describe_step
from data_pipelines.cleaning.subject import Subject
from data_pipelines.deduplication.columns import has_run, write_columns
from data_pipelines.deduplication.signatures import SIGNATURE_VERSION
from data_pipelines.document import Document, identify, to_utf8, write_documents
from data_pipelines.sources import code, code_records, documents, web, wikipedia
from data_pipelines.sources.packages import name_origin
from data_pipelines.sources.unit import Unit
from llmtrain.config.cleaning import StepConfig
from llmtrain.config.deduplicate import DeduplicateConfig
from llmtrain.errors import DataError
from llmtrain.shards.manifest import write_atomically

# Raised when the text that a reader or the cleaning makes of the same input changes.
EXTRACT_VERSION = 6

READERS: dict[str, Callable[[Unit, Account], Iterator[Document]]] = {
    "html": web.read_html_files,
    "warc": web.read_warc,
    "wikipedia": wikipedia.read_dump,
    "code": code.read_files,
    "code_archive": code.read_archive,
    "code_records": code_records.read_code_records,
    "documents": documents.read_records,
    "text": documents.read_text_files,
}


def fingerprint(*parts: Any) -> str:
    """Identity of plain values: equal values, equal text."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def fingerprint_unit(unit: Unit, steps: Sequence[StepConfig], deduplicate: DeduplicateConfig) -> str:
    """Changes when the input, its configuration or the code that reads it change."""
    versions, repeats = (EXTRACT_VERSION, SIGNATURE_VERSION), deduplicate.model_dump()
    return fingerprint(versions, asdict(unit), list(map(describe_step, steps)), repeats)


def extract_unit(
    unit: Unit, steps: Sequence[StepConfig], part: Path, columns: Path, deduplicate: DeduplicateConfig
) -> Account:
    """Read, mend and clean one unit; does nothing when its part is there already.

    Args:
        unit: input files.
        steps: the cleaning of its source.
        part: file of documents to write; its account lies beside it and is written last.
        columns: stem of the files that deduplication needs.
        deduplicate: says what it needs.

    Raises:
        DataError: an input is damaged, or changed since it was listed, or the part could not be written.
    """
    account_path = part.with_suffix(".json")
    if account_path.exists() and part.exists() and has_run(columns):
        return Account.from_json(json.loads(account_path.read_text(encoding="utf-8")))
    account, started = Account(), time.process_time()
    try:
        write_documents(part, write_columns(_clean(unit, steps, account), columns, deduplicate))
    except DataError:
        unit.refuse_changed()  # which explains it better
        raise
    unit.refuse_changed()
    account.seconds = time.process_time() - started
    write_atomically(account_path, json.dumps(account.to_json(), ensure_ascii=False).encode())
    return account


def _clean(unit: Unit, configs: Sequence[StepConfig], account: Account) -> Iterator[Document]:
    steps = build_steps(configs)
    for document in READERS[unit.kind](unit, account):
        # What UTF-8 cannot hold could not be written.
        origin, place = name_origin(to_utf8(document.origin)), name_origin(to_utf8(document.place))
        licence = to_utf8(document.licence)
        subject = Subject(mend(document.text), to_utf8(document.language))
        if subject.text.strip("\n") != document.text.strip("\n"):  # each text ends with one line end
            account.note_change("mend", origin, document.text, subject.text)
        for name, step in steps:
            before = subject.text
            reason = step(subject)
            if reason is not None:
                account.drop(reason, origin, subject.text)
                break
            if subject.text is not before:
                account.note_change(name, origin, before, subject.text)
        else:
            account.keep(subject.text, subject.language, origin)
            account.licences[licence] += 1
            for note in subject.notes:
                account.note(note, origin, subject.text)
            yield Document(subject.text, origin, licence, subject.language, identify(subject.text), place)
