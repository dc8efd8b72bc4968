import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from data_pipelines.document import Document, identify
from data_pipelines.train_tokenizer import train_tokenizer
from data_pipelines.write_shards import write_shards
from llmtrain.__main__ import app
from llmtrain.config.corpus import TokenizerConfig
from llmtrain.config.loader import load_config
from llmtrain.data.loader import build_loader
from llmtrain.errors import ConfigError, DataError
from llmtrain.plan.build import build_plan
from llmtrain.shards.packing import build_pack_indexes
from llmtrain.shards.reader import open_data
from llmtrain.shards.trace import Tracer
from llmtrain.stages.trace_step import trace_step
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from tests.helpers.configs import write_tiny_config
from tests.helpers.texts import stdlib_texts

TEXTS = [piece for text in stdlib_texts() for piece in text.split("\n\n") if piece][:300]
DOCUMENTS = [Document(text, f"lib/{i}.py", "PSF-2.0", "python", identify(text)) for i, text in enumerate(TEXTS)]
PIECE = re.compile(r"  ([0-9a-f]{32})  tokens ([\d,]+) to ([\d,]+) of [\d,]+  PSF-2\.0  lib/\d+\.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    config = TokenizerConfig(vocab_size=400, train_characters=50_000)
    tokenizer = train_tokenizer({"code": lambda: iter(TEXTS)}, config, data / "tokenizer")
    told: dict[str, Any] = {"licence": "PSF-2.0", "provenance": {}, "validation_fraction": 0.1}
    for source, documents in (("code", DOCUMENTS[:200]), ("web", DOCUMENTS[200:])):
        write_shards(
            documents, data / "shards" / source, tokenizer, source=source, shard_tokens=3000, workers=1, **told
        )
    return data


def read_batch(config_path: Path, folder: Path, step: int) -> list[list[int]]:
    """What training reads."""
    config = load_config([config_path]).config
    shards = open_data(folder, "train")
    if config.data.packing == "best_fit":
        for opened in shards.values():
            build_pack_indexes(opened, config.batch.sequence_length)
    loader = build_loader(config, build_plan(config, 1, Tokenizer.load(folder / "tokenizer").vocab_size), shards, 0)
    rows = [row for batch in loader.load_step(step - 1) for row in batch.input_ids_BT.tolist()]
    loader.close()
    return rows


def spell_out(lines: list[str], folder: Path) -> list[list[int]]:
    """Tokens of the pieces that were listed, sequence by sequence."""
    shards = open_data(folder, "train")
    tracers = {name: Tracer(opened) for name, opened in shards.items()}
    rows: list[list[int]] = []
    source = ""
    for line in lines[:-1]:
        if line.startswith("sequence"):
            source = line.split(": ")[1].partition(",")[0]
            rows.append([])
            continue
        found = PIECE.fullmatch(line)
        assert found is not None, line
        first, last = (int(found[i].replace(",", "")) for i in (2, 3))
        document = next(tracers[source].trace_id(found[1]))
        rows[-1] += shards[source].read(document.start + first, last - first + 1).tolist()
    return rows


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_the_documents_of_a_step_hold_exactly_the_tokens_that_training_reads(
    folder: Path, tmp_path: Path, packing: str
) -> None:
    path = write_tiny_config(tmp_path, data={"folder": str(folder), "packing": packing})
    for step in (1, 10):
        lines = list(trace_step(folder, path, step))
        assert lines[-1].startswith(f"step {step}: 8 sequences, pieces of documents: ")
        rows, read = spell_out(lines, folder), read_batch(path, folder, step)
        assert len(rows) == len(read) == 8
        for row, ids in zip(rows, read, strict=True):
            assert ids[: len(row)] == row
            assert set(ids[len(row) :]) <= {2}  # padding of a packed row
            assert packing == "best_fit" or len(row) == 16


def test_the_command_lists_the_documents_of_a_step(folder: Path, tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path, data={"folder": "data/elsewhere"})
    result = CliRunner().invoke(app, ["data", "show", str(folder), "--step", "3", "--run", str(path)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == list(trace_step(folder, path, 3))


def test_looking_at_packed_data_writes_nothing(folder: Path, tmp_path: Path) -> None:
    own = shutil.copytree(folder, tmp_path / "data", ignore=shutil.ignore_patterns("*.pack-*"))
    path = write_tiny_config(tmp_path, data={"folder": str(own), "packing": "best_fit"})
    before = sorted(own.rglob("*"))
    in_memory = list(trace_step(own, path, 3))
    assert sorted(own.rglob("*")) == before
    read_batch(path, own, 3)  # writes how it is packed
    assert sorted(own.rglob("*")) != before
    assert list(trace_step(own, path, 3)) == in_memory


def test_a_step_beyond_the_run_is_refused(folder: Path, tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path)
    for step in (0, 11):
        with pytest.raises(ConfigError, match=rf"step {step}: the run has 10 steps\. Choose 1 to 10"):
            list(trace_step(folder, path, step))


def test_a_run_that_was_trained_on_other_data_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_config(tmp_path).rename(tmp_path / "config.yaml")
    assert next(trace_step(folder, tmp_path, 1)).startswith("sequence 0: ")  # nothing was saved yet
    shards = open_data(folder, "train")
    trained_on = {f"source {name}": opened.manifest_sha256 for name, opened in shards.items()}
    trained_on["tokenizer"] = Tokenizer.load(folder / "tokenizer").sha256
    manifest = SimpleNamespace(progress={"data": trained_on})
    monkeypatch.setattr("llmtrain.stages.trace_step.find_latest", lambda _: tmp_path)
    monkeypatch.setattr("llmtrain.stages.trace_step.read_manifest", lambda _: manifest)
    assert next(trace_step(folder, tmp_path, 1)).startswith("sequence 0: ")
    trained_on["source web"] = "0" * 64
    with pytest.raises(DataError, match=r"data\d*: source web is not what .* was trained on"):
        next(trace_step(folder, tmp_path, 1))
