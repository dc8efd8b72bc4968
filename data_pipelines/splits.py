"""Which documents are held out for validation: it depends on the hash of their text alone."""

from collections.abc import Iterable
from pathlib import Path

from data_pipelines.document import read_documents
from llmtrain.errors import DataError

SPLITS = ("train", "validation")


def is_validation(document_id: str, fraction: float) -> bool:
    """Whether a document is held out; depends on its id alone.

    Args:
        document_id: hexadecimal digits of a hash of the text.
        fraction: share of documents to hold out.
    """
    return int(document_id[-16:], 16) < fraction * 2**64


def check_splits(paths: Iterable[Path], fraction: float) -> None:
    """See that each source has a document in each split; reads its documents until it has.

    Args:
        paths: file of documents of each source, named after it.
        fraction: share of documents to hold out.

    Raises:
        DataError: a source has none in one of them, or a file is missing or damaged.
    """
    for path in paths:
        counts = {True: 0, False: 0}
        for document in read_documents(path):
            counts[is_validation(document.id, fraction)] += 1
            if all(counts.values()):
                break
        else:
            name, number = path.name.partition(".jsonl")[0], sum(counts.values())
            lacking, remedy = ("train", "Give") if counts[True] else ("validation", "Raise it, or give")
            raise DataError(
                f"corpus.validation_fraction = {fraction}: source '{name}' has {number:,} different documents, and "
                f"none of them falls to {lacking}. {remedy} the source more text."
            )
