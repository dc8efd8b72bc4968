import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard

from data_pipelines.cleaning.decontaminate import Decontaminate, hash_ngrams, hash_words
from data_pipelines.cleaning.steps import describe_step
from data_pipelines.cleaning.subject import Subject
from data_pipelines.extract import fingerprint_unit
from data_pipelines.sources.unit import Unit
from llmtrain.config.cleaning import DecontaminateStep
from llmtrain.config.deduplicate import DeduplicateConfig
from llmtrain.errors import DataError

VOCABULARY = [f"{first}{second}" for first in "bcdfghklmnprst" for second in ("al", "enta", "iro", "olm", "uns")]
CONTAMINATED = "decontaminate: contaminated"


def make_text(seed: int, count: int) -> list[str]:
    return random.Random(seed).choices(VOCABULARY, k=count)


def configure(*paths: Path, **values: Any) -> DecontaminateStep:
    return DecontaminateStep(name="decontaminate", against=list(map(str, paths)), **values)


def judge(text: str, config: DecontaminateStep) -> str | None:
    return Decontaminate(config)(Subject(text))


def write_items(path: Path, *items: str) -> Path:
    path.write_text("".join(json.dumps({"text": item}) + "\n" for item in items))
    return path


@pytest.fixture
def items() -> list[list[str]]:
    return [make_text(seed, 40) for seed in range(25)]


@pytest.fixture
def config(tmp_path: Path, items: list[list[str]]) -> DecontaminateStep:
    return configure(write_items(tmp_path / "set.jsonl", *map(" ".join, items)))


def test_every_planted_piece_is_found_and_no_clean_document(items: list[list[str]], config: DecontaminateStep) -> None:
    step, found, wrong = Decontaminate(config), 0, 0
    for seed, item in enumerate(items):
        clean = make_text(1000 + seed, 400)
        start = seed % 20
        planted = [*clean[:200], *item[start : start + 13], *clean[200:]]
        disguised = " ".join(f"{word.title()}," if n % 3 else f"({word.upper()})" for n, word in enumerate(planted))
        found += step(Subject(" ".join(planted))) == CONTAMINATED
        found += step(Subject(disguised.replace(" ", "\n  "))) == CONTAMINATED
        shorter = [*clean[:200], "between", *item[start : start + 12], "between", *clean[200:]]
        wrong += step(Subject(" ".join(clean))) is not None
        wrong += step(Subject(" ".join(shorter))) is not None
    assert (found, wrong) == (50, 0)


def test_ngrams_of_hashes_are_equal_just_where_ngrams_of_words_are() -> None:
    words = random.Random(3).choices(["a", "b", "c"], k=3_000)
    ngrams = [tuple(words[i : i + 5]) for i in range(len(words) - 4)]
    hashes = hash_ngrams(hash_words(" ".join(words)), 5)
    assert len(set(ngrams)) == len(set(hashes.tolist())) == len(set(zip(ngrams, hashes.tolist(), strict=True)))


def test_apostrophes_case_and_punctuation_make_no_difference() -> None:
    assert hash_words("Don\u2019t --- STOP; it's_late!").tolist() == hash_words("dont stop its late").tolist()
    assert len(hash_words("\u4eba\u4eba\u751f\u800c\u81ea\u7531")) == 6


def test_short_items_are_looked_for_as_a_whole(tmp_path: Path) -> None:
    eight, seven = " ".join(VOCABULARY[:8]), " ".join(VOCABULARY[20:27])
    config = configure(write_items(tmp_path / "set.jsonl", eight, seven))
    assert judge(f"before {eight} behind", config) == CONTAMINATED
    assert judge(" ".join(VOCABULARY[:7]), config) is None
    assert judge(seven, config) is None


def test_a_contaminated_document_can_be_kept_and_counted(tmp_path: Path, config: DecontaminateStep) -> None:
    text = " ".join(make_text(0, 40))
    subject = Subject(text)
    step = Decontaminate(config.model_copy(update={"action": "report"}))
    assert step(subject) is None
    assert (subject.notes, subject.text) == ([CONTAMINATED], text)
    clean = Subject("nothing of it")
    assert (step(clean), clean.notes) == (None, [])


def test_every_format_and_field_is_read(tmp_path: Path) -> None:
    texts = [" ".join(make_text(seed, 20)) for seed in range(5)]
    (tmp_path / "a.txt").write_text(f"{texts[0]}\n\n{texts[1]}\n")
    record = json.dumps({"question": texts[2], "choices": [texts[3], "short"], "label": 2}) + "\n\n"
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(record.encode()))
    packed = zstandard.ZstdCompressor().compress(json.dumps({"question": texts[4]}).encode())
    (tmp_path / "c.jsonl.zst").write_bytes(packed)
    config = configure(tmp_path / "*.*", text_fields=["question", "choices"])
    assert [judge(text, config) for text in texts] == [CONTAMINATED] * 5
    across = " ".join(texts[0].split()[-7:] + texts[1].split()[:7])
    assert judge(across, config) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("set.jsonl", b'{"text": "a"}\n{broken\n', r"set\.jsonl: line 2 is not a record in JSON: .* Mend or leave out"),
        (
            "set.jsonl",
            b'{"body": "a", "id": 3}\n',
            r"line 1 has text in none of text_fields = \['text'\]; it has: body,",
        ),
        ("set.jsonl", b'["text"]\n', r"line 1 has text in none of .*; it has: no fields at all"),
        ("set.jsonl", b'{"text": "too short"}\n', r"no item of .* has 8 words\. Name other files, or lower"),
        ("set.jsonl", b"\xff\xfe", r"set\.jsonl: damaged or not UTF-8: .* Fetch it again"),
        ("set.jsonl.gz", b"no gzip", r"set\.jsonl\.gz: damaged or not UTF-8"),
        ("set.txt.zst", zstandard.ZstdCompressor().compress(b"x" * 9000)[:-3], r"set\.txt\.zst: damaged or not UTF-8"),
        ("set.csv", b"text", r"set\.csv' has an unknown ending\. Allowed: \.jsonl, \.txt, also with \.gz or \.zst"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        judge("", configure(tmp_path / name))


def test_a_path_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"decontaminate\.against: '.*no/such\.jsonl' matches no file\. Correct"):
        describe_step(configure(tmp_path / "no/such.jsonl"))


def test_a_changed_evaluation_file_makes_another_fingerprint_and_another_answer(tmp_path: Path) -> None:
    first, second = " ".join(make_text(1, 20)), " ".join(make_text(2, 20))
    path = write_items(tmp_path / "set.jsonl", first)
    config, unit = configure(path), Unit("documents", "", (), "MIT")
    before = fingerprint_unit(unit, [config], DeduplicateConfig())
    assert fingerprint_unit(unit, [config], DeduplicateConfig()) == before
    assert judge(first, config) == CONTAMINATED
    write_items(path, second)
    assert fingerprint_unit(unit, [config], DeduplicateConfig()) != before
    assert (judge(first, config), judge(second, config)) == (None, CONTAMINATED)
    write_items(path, first)
    assert fingerprint_unit(unit, [config], DeduplicateConfig()) == before
