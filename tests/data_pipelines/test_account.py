import json
from collections import Counter

from data_pipelines.account import MAX_KINDS, MAX_SAMPLES, Account


def test_accounts_add_up_and_survive_json() -> None:
    one = Account(1, 10, Counter(binary=2), samples={"binary": ["a", "b"]}, lengths=Counter({"3": 1}), seconds=0.5)
    two = Account(2, 20, Counter(binary=1, too_short=1), samples={"binary": ["c", "d"], "too_short": ["e"]}, seconds=1)
    two.changed["mask"] = 4
    two.lengths["3"] = 2
    one.add(two)
    assert (one.documents, one.characters, one.seconds) == (3, 30, 1.5)
    assert (one.dropped, one.changed, one.lengths) == ({"binary": 3, "too_short": 1}, {"mask": 4}, {"3": 3})
    assert one.samples == {"binary": ["a", "b", "c"], "too_short": ["e"]}
    assert Account.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_what_is_kept_is_counted_by_length_language_and_host() -> None:
    account = Account()
    account.keep("x" * 8, "en", "https://example.org/a")
    account.keep("x" * 15, "", "https://example.org:8080/b")
    account.keep("x" * 16, "de", "folder/file.html")
    assert account.lengths == {"3": 2, "4": 1}
    assert account.languages == {"en": 1, "de": 1}
    assert account.domains == {"example.org": 2}


def test_an_address_that_cannot_be_parsed_has_no_host() -> None:
    account = Account()
    for origin in ("http://[bad/x", "http://\u2100.com/", "http://[::1/x", "://"):
        account.keep("text", "", origin)
    assert (account.documents, account.domains) == (4, {})


def test_a_sample_of_a_change_shows_its_place() -> None:
    account = Account()
    account.note_change("mask", "page", "a" * 500 + "bob@example.org", "a" * 500 + "<email>")
    (sample,) = account.samples["mask"]
    assert sample == f"page: {'a' * 30 + 'bob@example.org'!r} -> {'a' * 30 + '<email>'!r}"
    for _ in range(5):
        account.note_change("mask", "page", "longer", "long")
    assert (account.changed["mask"], len(account.samples["mask"])) == (6, MAX_SAMPLES)


def test_a_finding_about_a_document_that_stays_is_counted_with_samples() -> None:
    one, two = Account(), Account()
    for number in range(5):
        one.note("decontaminate: contaminated", f"page {number}", "text")
    two.note("decontaminate: contaminated", "page 5", "text")
    one.add(two)
    assert one.noted == {"decontaminate: contaminated": 6}
    assert one.samples["decontaminate: contaminated"] == [f"page {number}: 'text'" for number in range(MAX_SAMPLES)]
    assert Account.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert (one.dropped, one.documents) == ({}, 0)


def test_the_hosts_of_a_crawl_stay_few() -> None:
    account = Account()
    for part in range(5):
        rare = Account(domains=Counter({f"{part}-{number}.org": 1 for number in range(MAX_KINDS)}))
        rare.domains["big.org"] = 100
        account.add(rare)
    assert account.domains["big.org"] == 500
    assert len(account.domains) <= 2 * MAX_KINDS
