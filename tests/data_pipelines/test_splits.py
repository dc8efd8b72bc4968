from collections.abc import Iterator

import pytest

from data_pipelines.document import Document, identify
from data_pipelines.splits import check_splits, is_validation
from llmtrain.errors import DataError


def make(*texts: str) -> Iterator[Document]:
    return (Document(text, "", "", "", identify(text)) for text in texts)


TEXTS = [f"text {number}" for number in range(200)]
TRAIN = [text for text in TEXTS if not is_validation(identify(text), 0.2)]
VALIDATION = [text for text in TEXTS if is_validation(identify(text), 0.2)]


def test_about_the_fraction_is_held_out() -> None:
    assert 25 <= len(VALIDATION) <= 55
    assert sum(is_validation(identify(text), 0.1) for text in TRAIN) == 0


def test_a_source_with_a_document_in_each_split_is_read_up_to_them() -> None:
    check_splits("own", make(*TEXTS), 0.2)
    documents = make(TRAIN[0], VALIDATION[0], TRAIN[1])
    check_splits("web", documents, 0.2)
    assert [document.text for document in documents] == [TRAIN[1]]


def test_a_source_without_a_document_in_a_split_is_refused_with_the_key_to_change() -> None:
    with pytest.raises(DataError) as raised:
        check_splits("web.v1", make(*TRAIN[:3]), 0.2)
    assert str(raised.value) == (
        "corpus.validation_fraction = 0.2: source 'web.v1' has 3 different documents, and none of them falls to "
        "validation. Raise it, or give the source more text."
    )
    with pytest.raises(DataError, match=r"'own' has 1 different documents.* to train\. Give the source more text\."):
        check_splits("own", make(VALIDATION[0]), 0.2)
