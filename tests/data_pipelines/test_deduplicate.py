from data_pipelines.account import Account
from data_pipelines.deduplicate import SeenTexts
from data_pipelines.document import Document, identify


def documents(*texts: str) -> list[Document]:
    return [Document(text, f"place {number}", "MIT", id=identify(text)) for number, text in enumerate(texts)]


def test_the_first_of_equal_texts_stays_whatever_its_origin() -> None:
    account = Account()
    kept = list(SeenTexts().filter(documents("a", "b", "a", "A", "a"), account))
    assert [(document.text, document.origin) for document in kept] == [
        ("a", "place 0"),
        ("b", "place 1"),
        ("A", "place 3"),
    ]
    assert (account.documents, account.characters, account.dropped) == (3, 3, {"duplicate": 2})
    assert account.samples == {"duplicate": ["place 2: 'a'", "place 4: 'a'"]}


def test_texts_of_sources_before_are_duplicates_too() -> None:
    seen = SeenTexts()
    seen.remember(documents("a", "b"))
    assert list(seen.filter(documents("c"), Account()))
    assert [document.text for document in seen.filter(documents("b", "c", "d"), Account())] == ["d"]
