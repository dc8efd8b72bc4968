"""One unit of raw input -> one file of cleaned documents, and the account of what was dropped. Runs in a worker."""

import hashlib
import json
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from data_pipelines.clean import find_fault, mend
from data_pipelines.document import Document, write_documents
from data_pipelines.sources import code, documents, web, wikipedia
from data_pipelines.sources.unit import Unit
from llmtrain.config.corpus import CleanConfig
from llmtrain.shards.manifest import write_atomically

# Raised when the text that a reader or the cleaning makes of the same input changes.
EXTRACT_VERSION = 2
MAX_SAMPLES = 3
_SAMPLE_CHARACTERS = 120

READERS: dict[str, Callable[[Unit, Counter[str]], Iterator[Document]]] = {
    "html": web.read_html_files,
    "warc": web.read_warc,
    "wikipedia": wikipedia.read_dump,
    "code": code.read_files,
    "documents": documents.read_records,
}


@dataclass
class Account:
    """Where documents went: kept, or dropped for a reason, with samples to look at."""

    documents: int = 0
    characters: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0

    def drop(self, reason: str, document: Document) -> None:
        """Count a dropped document and keep its beginning if there are few samples."""
        self.dropped[reason] += 1
        samples = self.samples.setdefault(reason, [])
        if len(samples) < MAX_SAMPLES:
            samples.append(f"{document.origin}: {document.text[:_SAMPLE_CHARACTERS]!r}")

    def add(self, other: "Account") -> None:
        """Add what another one counted."""
        self.documents += other.documents
        self.characters += other.characters
        self.dropped += other.dropped
        self.seconds += other.seconds
        for reason, samples in other.samples.items():
            self.samples[reason] = [*self.samples.get(reason, []), *samples][:MAX_SAMPLES]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"dropped": dict(sorted(self.dropped.items()))}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """From what `to_json` gave."""
        return cls(**{**values, "dropped": Counter(values["dropped"])})


def fingerprint(*parts: Any) -> str:
    """Identity of plain values: equal values, equal text."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def fingerprint_unit(unit: Unit, clean: CleanConfig) -> str:
    """Changes when the input, its configuration or the code that reads it change."""
    return fingerprint(EXTRACT_VERSION, asdict(unit), unit.describe_inputs(), clean.model_dump())


def extract_unit(unit: Unit, clean: CleanConfig, part: Path) -> Account:
    """Read, mend and judge one unit; does nothing when its part is there already.

    Args:
        unit: input files.
        clean: section `corpus.clean`.
        part: file of documents to write; its account lies beside it and is written last.

    Raises:
        DataError: an input is damaged, or the part could not be written.
    """
    account_path = part.with_suffix(".json")
    if account_path.exists() and part.exists():
        return Account.from_json(json.loads(account_path.read_text(encoding="utf-8")))
    account, started = Account(), time.process_time()
    write_documents(part, _keep(unit, clean, account))
    account.seconds = time.process_time() - started
    write_atomically(account_path, json.dumps(account.to_json(), ensure_ascii=False).encode())
    return account


def end_with_parent() -> None:
    """Begin a worker that ends when its parent is killed: the parts it went on to write are those of the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _keep(unit: Unit, clean: CleanConfig, account: Account) -> Iterator[Document]:
    for document in READERS[unit.kind](unit, account.dropped):
        # File names are any bytes; those that are no UTF-8 could not be written.
        origin = document.origin.encode("utf-8", "backslashreplace").decode()
        mended = Document(mend(document.text), origin, document.licence)
        reason = find_fault(mended.text, clean)
        if reason is not None:
            account.drop(reason, mended)
            continue
        account.documents += 1
        account.characters += len(mended.text)
        yield mended
