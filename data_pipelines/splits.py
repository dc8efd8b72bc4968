"""Which documents are held out for validation: it depends on the hash of their text alone."""

from collections.abc import Iterable

from data_pipelines.document import Document
from llmtrain.errors import DataError

SPLITS = ("train", "validation")


def is_validation(document_id: str, fraction: float) -> bool:
    """Whether a document is held out; depends on its id alone.

    Args:
        document_id: hexadecimal digits of a hash of the text.
        fraction: share of documents to hold out.
    """
    return int(document_id[-16:], 16) < fraction * 2**64


def check_splits(name: str, documents: Iterable[Document], fraction: float) -> None:
    """See that a source has a document in each split; reads its documents until it has.

    Args:
        name: of the source.
        documents: of the source.
        fraction: share of documents to hold out.

    Raises:
        DataError: it has none in one of them.
    """
    counts = {True: 0, False: 0}
    for document in documents:
        counts[is_validation(document.id, fraction)] += 1
        if all(counts.values()):
            return
    lacking, remedy = ("train", "Give") if counts[True] else ("validation", "Raise it, or give")
    raise DataError(
        f"corpus.validation_fraction = {fraction}: source '{name}' has {sum(counts.values()):,} different documents, "
        f"and none of them falls to {lacking}. {remedy} the source more text."
    )
