from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.document import Document, identify
from data_pipelines.fill_in_the_middle import MIDDLE, PREFIX, SUFFIX, Part, rearrange, restore
from data_pipelines.splits import is_validation
from data_pipelines.train_tokenizer import train_tokenizer
from data_pipelines.write_shards import write_shards
from llmtrain.config.corpus import FillInTheMiddle, TokenizerConfig
from llmtrain.errors import DataError
from llmtrain.shards.manifest import ShardManifest
from llmtrain.shards.reader import ShardedTokens
from llmtrain.tokenizer.fast_conversion import convert_to_fast
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from llmtrain.tokenizer.special_tokens import FILL_IN_THE_MIDDLE_SYMBOLS
from tests.helpers.texts import stdlib_texts

TEXTS = [piece for text in stdlib_texts() for piece in text.split("\n\n") if piece][:400]
SENTINELS = "x = '<|fim_prefix|>' + \"<|fim_suffix|>\" + '<|fim_middle|>'  # spelled in text"
DOCUMENTS = [Document(text, "lib.py", "PSF-2.0", "python", identify(text)) for text in [*TEXTS, SENTINELS]]
ALWAYS = FillInTheMiddle(rate=1.0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    config = TokenizerConfig(vocab_size=500, train_characters=50_000)
    return train_tokenizer({"code": lambda: iter(TEXTS)}, config, tmp_path_factory.mktemp("t") / "tokenizer")


def write(folder: Path, tokenizer: Tokenizer, config: FillInTheMiddle | None, workers: int) -> dict[str, ShardManifest]:
    return write_shards(
        DOCUMENTS,
        folder,
        tokenizer,
        source="code",
        licence="PSF-2.0",
        provenance={},
        validation_fraction=0.1,
        shard_tokens=20_000,
        workers=workers,
        fill_in_the_middle=config,
    )


def read_documents_ids(folder: Path) -> list[list[int]]:
    shards = ShardedTokens(folder)
    rows = []
    for shard, start in enumerate(shards.shard_starts[:-1].tolist()):
        ends = shards.document_ends(shard).tolist()
        rows += [shards.read(start + a, b - a).tolist() for a, b in zip([0, *ends], ends, strict=False)]
    return rows


def split_at_sentinels(ids: list[int], tokenizer: Tokenizer) -> list[Part]:
    """From tokens back to parts."""
    names = {tokenizer.find_control_id(symbol): symbol for symbol in FILL_IN_THE_MIDDLE_SYMBOLS}
    parts: list[Part] = []
    run: list[int] = []
    for number in [*ids, -1]:
        if number in names or number == -1:
            parts.append(Part(tokenizer.decode(run)))
            run = []
            if number in names:
                parts.append(Part(names[number], is_sentinel=True))
        else:
            run.append(number)
    return parts[1:] if len(parts) > 1 else parts


@settings(max_examples=200, deadline=None)
@given(st.text(), st.floats(0, 1, exclude_min=True), st.floats(0, 1))
def test_what_was_rearranged_can_be_restored(text: str, rate: float, spm_fraction: float) -> None:
    config = FillInTheMiddle(rate=rate, spm_fraction=spm_fraction)
    parts = rearrange(identify(text), text, config)
    assert restore(parts) == text
    assert parts == rearrange(identify(text), text, config)
    assert parts == [Part(text)] or parts[0] == PREFIX


@pytest.mark.parametrize(("spm_fraction", "second"), [(0.0, "text"), (1.0, "suffix")])
def test_the_two_forms_are_those_of_the_paper(spm_fraction: float, second: str) -> None:
    parts = rearrange(identify("abcdef"), "abcdef", FillInTheMiddle(rate=1.0, spm_fraction=spm_fraction))
    sentinels = [part for part in parts if part.is_sentinel]
    assert sentinels == [PREFIX, SUFFIX, MIDDLE]
    assert (parts[1] == SUFFIX) == (second == "suffix")


def test_the_rates_hold_and_every_place_is_cut() -> None:
    config = FillInTheMiddle(rate=0.5, spm_fraction=0.25)
    rows = [rearrange(identify(str(number)), "abc", config) for number in range(4000)]
    moved = [row for row in rows if row[0] == PREFIX]
    assert 0.47 < len(moved) / 4000 < 0.53  # four standard deviations
    assert 0.21 < sum(row[1] == SUFFIX for row in moved) / len(moved) < 0.29
    assert {len(row[1].text) for row in moved if row[1] != SUFFIX} == {0, 1, 2, 3}


def test_undoing_it_gives_the_documents_back_and_validation_is_untouched(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write(tmp_path, tokenizer, ALWAYS, workers=2)
    train = [document.text for document in DOCUMENTS if not is_validation(document.id, 0.1)]
    rows = [split_at_sentinels(ids[1:-1], tokenizer) for ids in read_documents_ids(tmp_path / "train")]
    assert all(parts[0] == PREFIX for parts in rows)
    assert [restore(parts) for parts in rows] == train
    held_out = [document.text for document in DOCUMENTS if is_validation(document.id, 0.1)]
    found = read_documents_ids(tmp_path / "validation")
    assert found == [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in held_out]


def test_each_part_is_encoded_by_itself(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write(tmp_path, tokenizer, ALWAYS, workers=1)
    train = [document for document in DOCUMENTS if not is_validation(document.id, 0.1)]
    for document, found in zip(train, read_documents_ids(tmp_path / "train"), strict=True):
        expected = [tokenizer.bos_id]
        for part in rearrange(document.id, document.text, ALWAYS):
            expected += [tokenizer.find_control_id(part.text)] if part.is_sentinel else tokenizer.encode(part.text)
        assert found == [*expected, tokenizer.eos_id]


def test_the_shards_do_not_depend_on_threads(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write(tmp_path / "one", tokenizer, FillInTheMiddle(), workers=1)
    monkeypatch.setattr("data_pipelines.write_shards._BATCH_CHARACTERS", 2000)
    assert write(tmp_path / "many", tokenizer, FillInTheMiddle(), workers=3) == one
    assert write(tmp_path / "plain", tokenizer, None, workers=1) != one


def test_text_that_spells_sentinels_stays_text_in_both_tokenizers(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(SENTINELS)
    sentinels = {tokenizer.find_control_id(symbol) for symbol in FILL_IN_THE_MIDDLE_SYMBOLS}
    assert len(sentinels) == 3
    assert not sentinels & set(ids)
    assert convert_to_fast(tokenizer).encode(SENTINELS, add_special_tokens=False).ids == ids
    assert tokenizer.render([1, *sorted(sentinels), *tokenizer.encode("x"), 2]).endswith("x</s>")


def test_a_tokenizer_without_the_symbol_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"has no control symbol '<\|gap\|>'\. Train it anew"):
        tokenizer.find_control_id("<|gap|>")
