import io
import json
import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from data_pipelines.prepare import prepare
from data_pipelines.verify import verify_data
from llmtrain.config.loader import load_config
from llmtrain.errors import DataError
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from tests.helpers.configs import write_tiny_config
from tests.helpers.texts import stdlib_texts

TEXTS = [piece for text in stdlib_texts() for piece in text.split("\n\n") if len(piece) > 150]


def run(folder: Path, sources: str, *overrides: str) -> str:
    """Prepare sources named by letters into folder/data; gives what was told."""
    for number, name in enumerate(sources):
        if not (path := folder / f"{name}.jsonl").exists():
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[number::7]))
    configured = {name: {"kind": "documents", "paths": [str(folder / f"{name}.jsonl")]} for name in sources}
    tokenizer = {"vocab_size": 400, "train_characters": 100_000}
    corpus = {"sources": configured, "tokenizer": tokenizer, "validation_fraction": 0.2, "workers": 1}
    write_tiny_config(folder, corpus=corpus)
    output = io.StringIO()
    config = load_config([folder / "tiny.yaml"], [f"data.folder={folder}/data", *overrides]).config
    prepare(config, Console(file=output, width=500))
    return output.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_an_appended_source_leaves_tokenizer_and_shards_of_the_others_as_they_are(tmp_path: Path) -> None:
    run(tmp_path, "ab")
    tokenizer, before = contents(tmp_path / "data" / "tokenizer"), contents(tmp_path / "data" / "shards")
    told = run(tmp_path, "abc")
    assert (
        "tokenizer              kept, trained on a, b. To train one on a, b, c, which writes all shards again, remove "
        f"{tmp_path}/data/tokenizer" in told
    )
    assert "shards/a               up to date" in told
    after = contents(tmp_path / "data" / "shards")
    assert contents(tmp_path / "data" / "tokenizer") == tokenizer
    del before["sources.json"]
    assert before.items() <= after.items()
    assert any(name.startswith("c/") for name in after)
    verify_data(tmp_path / "data", Console(file=io.StringIO()))
    assert "tokenizer              up to date" in run(tmp_path, "ab")
    assert "tokenizer              kept, trained on a, b" in run(tmp_path, "a")
    shutil.rmtree(tmp_path / "data" / "tokenizer")
    assert "train tokenizer" in run(tmp_path, "abc")
    assert contents(tmp_path / "data" / "tokenizer") != tokenizer
    assert "tokenizer              up to date" in run(tmp_path, "abc")


def test_an_appended_source_too_small_for_both_splits_is_refused_and_the_others_stay_as_they_are(
    tmp_path: Path,
) -> None:
    run(tmp_path, "ab")
    tokenizer, shards = contents(tmp_path / "data" / "tokenizer"), contents(tmp_path / "data" / "shards")
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "One document of its own, and no other. " * 5}) + "\n")
    with pytest.raises(DataError, match=r"validation_fraction = 0\.2: source 'c' has 1 different documents"):
        run(tmp_path, "abc")
    assert contents(tmp_path / "data" / "tokenizer") == tokenizer
    assert contents(tmp_path / "data" / "shards") == shards
    verify_data(tmp_path / "data", Console(file=io.StringIO()))


def test_a_kept_tokenizer_that_is_damaged_is_made_again_as_it_was(tmp_path: Path) -> None:
    run(tmp_path, "ab")
    before = contents(tmp_path / "data" / "tokenizer")
    with (tmp_path / "data" / "tokenizer" / "tokenizer.model").open("ab") as file:
        file.write(b"x")
    assert "tokenizer              done again" in run(tmp_path, "abc")
    assert contents(tmp_path / "data" / "tokenizer") == before


def test_a_tokenizer_is_trained_again_when_its_text_or_its_settings_change(tmp_path: Path) -> None:
    run(tmp_path, "ab")
    assert "train tokenizer" in run(tmp_path, "ab", "corpus.tokenizer.vocab_size=410")
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(json.dumps({"text": TEXTS[6]}) + "\n")
    assert "train tokenizer" in run(tmp_path, "ab", "corpus.tokenizer.vocab_size=410")


def test_touched_inputs_are_the_same_data(tmp_path: Path) -> None:
    run(tmp_path, "ab")
    before = contents(tmp_path / "data" / "shards")
    assert "documents_fingerprint" not in json.loads(before["a/train/manifest.json"])["provenance"]
    for name in "ab":
        os.utime(tmp_path / f"{name}.jsonl", ns=(1, 1))
    told = run(tmp_path, "ab")
    assert "deduplicate a" in told  # which tells that their text is the same
    assert told.count("up to date") == 3
    shutil.rmtree(tmp_path / "data")
    run(tmp_path, "ab")
    assert contents(tmp_path / "data" / "shards") == before


def test_an_existing_tokenizer_is_taken(tmp_path: Path) -> None:
    run(tmp_path, "ab", "corpus.tokenizer.vocab_size=390")
    shutil.move(tmp_path / "data", tmp_path / "other")
    given = f"corpus.tokenizer.folder={tmp_path}/other/tokenizer"
    assert f"tokenizer              taken from {tmp_path}/other/tokenizer" in run(tmp_path, "ac", given)
    assert Tokenizer.load(tmp_path / "data" / "tokenizer").vocab_size == 390
    assert run(tmp_path, "ac", given).count("up to date") == 3
    assert "train tokenizer" in run(tmp_path, "ac")
    with pytest.raises(DataError, match=r"tokenizer .*gone: cannot be read"):
        run(tmp_path, "ac", f"corpus.tokenizer.folder={tmp_path}/gone")
