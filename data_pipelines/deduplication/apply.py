"""Documents of a source and what was decided about them -> the documents that stay, and the account of the others."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from data_pipelines.account import Account
from data_pipelines.deduplication.decide import KEPT, REASONS, Place, Verdict
from data_pipelines.deduplication.paragraphs import remove_paragraphs, split_paragraphs
from data_pipelines.document import Document, read_documents
from llmtrain.config.deduplicate import DuplicateParagraphs
from llmtrain.errors import DataError

_STEP = "duplicate_paragraphs"


def apply_verdict(
    documents: Iterable[Document], verdict: Verdict, paragraphs: DuplicateParagraphs | None, account: Account
) -> Iterator[Document]:
    """Documents that stay, without the paragraphs that go; their ids stay as they were.

    Args:
        documents: all of a source, in the order of its columns.
        verdict: what was decided.
        paragraphs: None where paragraphs stay.
        account: counts them.

    Raises:
        DataError: there are more or fewer documents than were decided about.
    """
    place, number = 0, -1
    for number, document in enumerate(documents):
        if number == len(verdict.fates):
            _refuse_count(f"more than {number:,}", verdict)
        fate, text = int(verdict.fates[number]), document.text
        if paragraphs and verdict.removed is not None:
            count = len(split_paragraphs(text, paragraphs.min_characters))
            is_removed = verdict.removed[place : place + count].tolist()
            place += count
            if fate == KEPT and any(is_removed):
                text = remove_paragraphs(text, paragraphs.min_characters, is_removed)
                account.note_change(_STEP, document.origin, document.text, text)
        if fate != KEPT:
            survivor = verdict.samples.get(number)
            told = f"{document.origin} (like {survivor.source} {survivor.id})" if survivor else document.origin
            account.drop(REASONS[fate], told, document.text)
            continue
        account.keep(text, document.language, document.origin)
        yield document if text is document.text else replace(document, text=text)
    if number + 1 < len(verdict.fates):
        _refuse_count(f"{number + 1:,}", verdict)


def _refuse_count(found: str, verdict: Verdict) -> NoReturn:
    raise DataError(
        f"{found} documents, but it was decided about {len(verdict.fates):,}: the folders 'work' and 'signatures' do "
        "not belong together. Remove both from data.folder and run `llmtrain data prepare` again."
    )


def find_origins(places: Iterable[Place], paths: Mapping[str, Path]) -> dict[Place, str]:
    """Origins of documents that stay; of those that lost too many paragraphs to stay, their ids.

    Args:
        places: whose.
        paths: file of documents of each source; read up to the last document that is looked for.

    Raises:
        DataError: a file is missing or damaged.
    """
    found = {place: f"{place.source} {place.id}" for place in places}
    wanted: dict[str, set[str]] = {}
    for place in found:
        wanted.setdefault(place.source, set()).add(place.id)
    for source, ids in wanted.items():
        for document in read_documents(paths[source]):
            if document.id in ids:
                found[Place(source, document.id)] = document.origin
                ids.remove(document.id)
                if not ids:
                    break
    return found


def describe_clusters(verdict: Verdict, origins: Mapping[Place, str]) -> dict[str, Any]:
    """Sizes of clusters for the report: `copies` as in the verdict, and the largest with origins of their survivors."""
    largest = [{"dropped": size, "source": place.source, "origin": origins[place]} for size, place in verdict.largest]
    return {"copies": verdict.copies, "largest": largest}


def name_survivors(account: Account, origins: Mapping[Place, str]) -> None:
    """Put origins where samples hold the ids of survivors."""
    for reason in set(REASONS.values()) & set(account.samples):
        samples = account.samples[reason]
        for place, origin in origins.items():
            samples = [sample.replace(f"(like {place.source} {place.id})", f"(like {origin})") for sample in samples]
        account.samples[reason] = samples
