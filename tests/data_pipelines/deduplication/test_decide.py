import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.account import Account
from data_pipelines.deduplication import clusters as clusters_module
from data_pipelines.deduplication import columns as columns_module
from data_pipelines.deduplication import decide as decide_module
from data_pipelines.deduplication.apply import apply_verdict
from data_pipelines.deduplication.columns import Run, read_runs, write_columns
from data_pipelines.deduplication.decide import Place, Verdict, decide
from data_pipelines.deduplication.signatures import compute_bands, compute_shingles
from data_pipelines.document import Document, identify
from llmtrain.config.deduplicate import DeduplicateConfig, DuplicateParagraphs, NearDuplicates
from llmtrain.errors import DataError
from tests.helpers.texts import stdlib_texts

ALL = DeduplicateConfig(near=NearDuplicates(), paragraphs=DuplicateParagraphs())
Corpus = dict[str, list[list[str]]]
"""Texts of the units of each source."""


def passages(count: int) -> list[str]:
    """Real text of 120 words each, no word of which is in two of them."""
    words = " ".join(stdlib_texts()).split()
    return [" ".join(words[start : start + 120]) for start in range(0, 120 * count, 120)]


def document(text: str) -> Document:
    return Document(text, f"place of {text[:9]}", "MIT", id=identify(text))


def write(corpus: Corpus, config: DeduplicateConfig, folder: Path) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {}
    for name, units in corpus.items():
        runs[name] = []
        for number, texts in enumerate(units):
            stem = folder / name / str(number)
            passed = list(write_columns(map(document, texts), stem, config))
            assert [one.text for one in passed] == texts
            runs[name] += read_runs(stem)
    return runs


def deduplicate(
    corpus: Corpus, config: DeduplicateConfig, folder: Path, range_entries: int = 1000, threads: int = 2
) -> tuple[dict[str, list[str]], dict[str, Account], dict[str, Verdict]]:
    """Texts that stay, accounts and verdicts by source."""
    runs = write(corpus, config, folder / "signatures")
    verdicts = decide(runs, config, folder / "work", threads, range_entries=range_entries)
    accounts = {name: Account() for name in corpus}
    kept = {
        name: [
            one.text
            for one in apply_verdict(
                (document(text) for unit in units for text in unit), verdicts[name], config.paragraphs, accounts[name]
            )
        ]
        for name, units in corpus.items()
    }
    return kept, accounts, verdicts


def decide_slowly(corpus: Corpus, config: DeduplicateConfig) -> dict[str, list[str]]:
    """The same from the definition: clusters among the documents up to the end of each source, by comparing all."""
    texts: list[str] = []
    kept: dict[str, list[str]] = {}
    bands: list[list[int]] = []
    for name, units in corpus.items():
        own = [text for unit in units for text in unit]
        start = len(texts)
        texts += own
        if config.near:
            bands += compute_bands(own, config.near)[0].T.tolist()
        names = list(range(len(texts)))
        for b in range(len(texts)):
            for a in range(b):
                is_near = bool(config.near) and any(x == y for x, y in zip(bands[a], bands[b], strict=True))
                if (config.exact and texts[a] == texts[b]) or is_near:
                    low, high = sorted((names[a], names[b]))
                    names = [low if value == high else value for value in names]
        kept[name] = [texts[number] for number in range(start, len(texts)) if names[number] == number]
    return kept


def make_corpus(seed: int) -> Corpus:
    """Two sources of two units each, with copies and edits of some real passages."""
    generator = random.Random(seed)
    originals = passages(12)

    def draw() -> str:
        words = generator.choice(originals).split()
        for _ in range(generator.choice([0, 0, 1, 3, 6])):
            words[generator.randrange(len(words))] = f"zz{generator.random()}"
        return " ".join(words)

    return {name: [[draw() for _ in range(generator.randrange(14))] for _ in range(2)] for name in ("first", "second")}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("range_entries", [3, 1000])
def test_what_stays_is_what_comparing_all_pairs_leaves(seed: int, range_entries: int, tmp_path: Path) -> None:
    corpus = make_corpus(seed)
    for number, config in enumerate(
        (DeduplicateConfig(), DeduplicateConfig(near=NearDuplicates()), DeduplicateConfig(exact=False))
    ):
        kept, accounts, _ = deduplicate(corpus, config, tmp_path / str(number), range_entries)
        assert kept == decide_slowly(corpus, config)
        for name, units in corpus.items():
            assert accounts[name].documents + accounts[name].dropped.total() == sum(map(len, units))


def test_the_first_of_equal_texts_stays_within_and_across_sources(tmp_path: Path) -> None:
    corpus: Corpus = {"one": [["a", "b", "a"], ["A", "a"]], "two": [[], ["b", "c"]]}
    kept, accounts, verdicts = deduplicate(corpus, DeduplicateConfig(), tmp_path)
    assert kept == {"one": ["a", "b", "A"], "two": ["c"]}
    assert accounts["one"].dropped == {"duplicate": 2}
    assert accounts["two"].dropped == {"duplicate": 1}
    place = Place("one", identify("b"))
    assert verdicts["two"].samples == {0: place}
    assert verdicts["two"].largest == [(1, place)]
    assert accounts["two"].samples == {"duplicate": [f"place of b (like one {identify('b')}): 'b'"]}
    assert verdicts["one"].copies == {"1": 1}
    assert verdicts["one"].largest == [(2, Place("one", identify("a")))]


def test_near_duplicates_are_told_from_equal_ones_and_texts_without_words_have_none(tmp_path: Path) -> None:
    text = passages(1)[0]
    corpus: Corpus = {"one": [[text, text, f"{text} End.", "?!", "...", "?!"]]}
    kept, accounts, _ = deduplicate(corpus, DeduplicateConfig(near=NearDuplicates()), tmp_path)
    assert kept == {"one": [text, "?!", "..."]}
    assert accounts["one"].dropped == {"duplicate": 2, "near_duplicate": 1}


def test_a_later_source_does_not_change_what_stays_of_an_earlier_one(tmp_path: Path) -> None:
    for seed in range(4):
        corpus = make_corpus(seed)
        both, _, _ = deduplicate(corpus, ALL, tmp_path / f"both{seed}")
        alone, _, _ = deduplicate({"first": corpus["first"]}, ALL, tmp_path / f"alone{seed}")
        assert both["first"] == alone["first"]


def test_units_runs_ranges_and_threads_do_not_change_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus(11)
    expected = deduplicate(corpus, ALL, tmp_path / "a")
    assert sum(account.dropped.total() for account in expected[1].values()) > 3
    regrouped = {name: [[text for unit in units for text in unit]] for name, units in corpus.items()}
    monkeypatch.setattr(columns_module, "RUN_DOCUMENTS", 3)
    for number, (texts, entries, threads) in enumerate(((corpus, 5, 1), (regrouped, 7, 3))):
        kept, accounts, verdicts = deduplicate(texts, ALL, tmp_path / str(number), entries, threads)
        assert len(list((tmp_path / str(number)).rglob("*.documents.npy"))) > 5
        assert (kept, accounts) == expected[:2]
        assert [verdict.largest for verdict in verdicts.values()] == [
            verdict.largest for verdict in expected[2].values()
        ]


def make_paragraph(number: int) -> str:
    return f"Paragraph {number} says something of its own. " + passages(40)[number][:150]


def join(numbers: Sequence[int]) -> str:
    return "\n\n".join(map(make_paragraph, numbers))


def test_paragraphs_stay_where_they_stand_first_among_documents_that_stay(tmp_path: Path) -> None:
    config = DeduplicateConfig(paragraphs=DuplicateParagraphs())
    corpus: Corpus = {
        "one": [[join([0, 1]), join([0, 1]), join([2, 0, 2])]],
        "two": [[join([0, 2]), join([3, 1]), "Short.\n\nShort."]],
    }
    kept, accounts, _ = deduplicate(corpus, config, tmp_path)
    assert kept == {"one": [join([0, 1]), join([2])], "two": [join([3]), "Short.\n\nShort."]}
    assert accounts["one"].dropped == {"duplicate": 1}
    assert accounts["two"].dropped == {"duplicate_paragraphs": 1}
    assert accounts["two"].changed == {"duplicate_paragraphs": 1}


def test_a_paragraph_that_stood_first_in_a_document_of_which_too_little_is_left_stays_elsewhere(tmp_path: Path) -> None:
    config = DeduplicateConfig(paragraphs=DuplicateParagraphs(min_left_characters=300))
    corpus: Corpus = {"one": [[join([0, 1, 2]), join([0, 1, 9]), join([9, 4, 5])]]}
    kept, accounts, _ = deduplicate(corpus, config, tmp_path)
    assert kept == {"one": [join([0, 1, 2]), join([9, 4, 5])]}
    assert accounts["one"].dropped == {"duplicate_paragraphs": 1}


def test_the_id_stays_that_of_the_text_before_paragraphs_went(tmp_path: Path) -> None:
    config = DeduplicateConfig(paragraphs=DuplicateParagraphs())
    texts = [join([0, 1]), join([1, 2])]
    runs = write({"one": [texts]}, config, tmp_path / "signatures")
    verdict = decide(runs, config, tmp_path / "work", 1)["one"]
    kept = list(apply_verdict(map(document, texts), verdict, config.paragraphs, Account()))
    assert [one.id for one in kept] == list(map(identify, texts))
    assert [one.text for one in kept] == [join([0, 1]), join([2])]


def test_a_decision_about_other_documents_is_refused(tmp_path: Path) -> None:
    texts = [join([0, 1]), join([1, 2])]
    verdict = decide(write({"one": [texts]}, ALL, tmp_path / "signatures"), ALL, tmp_path / "work", 1)["one"]
    for found, told in (
        (texts[:1], r"1 documents, but it was decided about 2: "),
        ([*texts, "new"], "more than 2 docu"),
    ):
        with pytest.raises(DataError, match=told):
            list(apply_verdict(map(document, found), verdict, None, Account()))
    with pytest.raises(DataError, match=r"gone\.\*: missing\. Remove the folder around it"):
        read_runs(tmp_path / "signatures" / "gone")


def test_repeats_that_were_found_are_not_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = make_corpus(1)
    config = DeduplicateConfig(near=NearDuplicates())
    runs = write(corpus, config, tmp_path / "signatures")
    first = decide(runs, config, tmp_path / "work", 2)
    fates = {name: verdict.fates.tolist() for name, verdict in first.items()}
    found = sorted((tmp_path / "work" / "repeats").iterdir())
    assert len(found) == 15
    found[3].unlink()
    times = {path: path.stat().st_mtime_ns for path in found if path.exists()}
    again = decide(runs, config, tmp_path / "work", 2)
    assert {name: verdict.fates.tolist() for name, verdict in again.items()} == fates
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert found[3].exists()


def test_damaged_columns_are_refused_with_what_to_do(tmp_path: Path) -> None:
    config = DeduplicateConfig()
    runs = write({"one": [["a", "b"]]}, config, tmp_path)
    path = tmp_path / "one" / "0.00000.ids.npy"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"0\.00000\.ids\.npy: damaged or missing: .* Remove the folder around it and"):
        decide(runs, config, tmp_path / "work", 1)


def test_no_band_is_shared_by_two_documents_that_stay(tmp_path: Path) -> None:
    config = DeduplicateConfig(near=NearDuplicates())
    for seed in range(4):
        kept, _, _ = deduplicate(make_corpus(seed), config, tmp_path / str(seed))
        texts = kept["first"] + kept["second"]
        bands = compute_bands(texts, NearDuplicates())[0]
        assert all(len(np.unique(band)) == len(texts) for band in bands)


def jaccard(first: str, second: str) -> float:
    a, b = (set(compute_shingles([text], 5)[0].tolist()) for text in (first, second))
    return len(a & b) / len(a | b)


def test_planted_edits_are_dropped_as_often_as_the_formula_says_and_are_like_what_stays(tmp_path: Path) -> None:
    generator = random.Random(5)
    originals = passages(250)
    shares = (0.01, 0.05, 0.2)
    edited = [
        " ".join(f"zz{generator.random()}" if generator.random() < share else word for word in text.split())
        for share in shares
        for text in originals
    ]
    kept, accounts, verdicts = deduplicate(
        {"originals": [originals], "edited": [edited]}, DeduplicateConfig(near=NearDuplicates()), tmp_path
    )
    unique = [text for text in originals if text in set(kept["originals"])]
    assert len(unique) > 240
    similarities = np.array([jaccard(text, originals[number % 250]) for number, text in enumerate(edited)])
    chances = 1 - (1 - similarities**8) ** 14
    dropped = verdicts["edited"].fates[: len(edited)] != 0
    for class_ in range(3):
        own = slice(class_ * 250, class_ * 250 + 250)
        bound = 4 * np.sqrt((chances[own] * (1 - chances[own])).sum()) + 1
        assert abs(dropped[own].sum() - chances[own].sum()) < bound
    assert dropped[:250].mean() > 0.97
    assert dropped[500:].mean() < 0.05
    survivors = np.load(tmp_path / "work" / "forest.npy")[250:][dropped]
    texts = originals + edited
    like = [
        jaccard(texts[survivor], edited[number])
        for survivor, number in zip(survivors, np.flatnonzero(dropped), strict=True)
    ]
    assert min(like) > 0.3
    assert np.mean(like) > 0.75
    assert accounts["edited"].dropped.total() == dropped.sum()


def test_memory_is_that_of_a_range_not_of_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide_module, "_CHUNK", 1 << 12)
    monkeypatch.setattr(clusters_module, "_CHUNK", 1 << 12)
    peaks = []
    for size in (50_000, 400_000):
        folder = tmp_path / str(size)
        folder.mkdir()
        hashes = np.sort(
            np.random.default_rng(size).integers(0, size, size).astype(np.uint64) * np.uint64(2**64 // size)
        )
        np.save(folder / "unit.00000.documents.npy", np.array([size, 0]))
        np.save(folder / "unit.00000.ids.npy", np.stack([hashes] * 2))
        np.save(folder / "unit.00000.ids.order.npy", np.random.default_rng(0).permutation(size).astype(np.uint32)[None])
        tracemalloc.start()
        verdict = decide(
            {"one": [Run(folder / "unit", 0)]}, DeduplicateConfig(), folder / "work", 1, range_entries=5000
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert abs((verdict["one"].fates == 0).mean() - (1 - np.exp(-1))) < 0.02
    assert peaks[1] < 1.5 * peaks[0] < 3e6


def test_runs_of_an_earlier_attempt_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "RUN_DOCUMENTS", 2)
    for count, runs in ((5, 3), (4, 2), (1, 1), (0, 1)):
        texts = [f"text {number}" for number in range(count)]
        written = write({"one": [texts]}, ALL, tmp_path)["one"]
        assert [run.documents for run in written] == [2] * (count // 2) + [count % 2] * (runs - count // 2)
