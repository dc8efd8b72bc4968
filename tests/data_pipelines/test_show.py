from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data_pipelines.document import Document, identify
from data_pipelines.show import describe, show_document, show_sample, show_token
from data_pipelines.splits import is_validation
from data_pipelines.train_tokenizer import train_tokenizer
from data_pipelines.write_shards import write_shards
from llmtrain.__main__ import app
from llmtrain.config.corpus import TokenizerConfig
from llmtrain.errors import ConfigError, DataError
from llmtrain.shards.origins import Origin
from llmtrain.shards.reader import open_data
from llmtrain.shards.trace import TracedDocument, Tracer
from tests.helpers.texts import stdlib_texts

TEXTS = [piece for text in stdlib_texts() for piece in text.split("\n\n") if piece][:300]
DOCUMENTS = [Document(text, f"lib/{i}.py", "PSF-2.0", "python", identify(text)) for i, text in enumerate(TEXTS)]
TRAIN = [document for document in DOCUMENTS if not is_validation(document.id, 0.2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    config = TokenizerConfig(vocab_size=400, train_characters=50_000)
    tokenizer = train_tokenizer({"code": lambda: iter(TEXTS)}, config, data / "tokenizer")
    told: dict[str, Any] = {"licence": "PSF-2.0", "provenance": {}, "validation_fraction": 0.2}
    for source, documents in (("code", DOCUMENTS), ("web", DOCUMENTS[:100])):
        write_shards(
            documents, data / "shards" / source, tokenizer, source=source, shard_tokens=5000, workers=1, **told
        )
    return data


def test_a_sample_is_the_same_at_every_call_and_tells_origins_and_texts(folder: Path) -> None:
    lines = list(show_sample(folder, "train", "code", 5))
    assert lines == list(show_sample(folder, "train", "code", 5))
    assert len(lines) == 25
    origins = {line.removeprefix("  origin   ") for line in lines if line.startswith("  origin")}
    assert len(origins) == 5
    assert origins <= {document.origin for document in TRAIN}
    assert "  licence  PSF-2.0, language python" in lines
    assert len(list(show_sample(folder, "train", None, 1000))) == 5 * sum(
        shards.document_count for shards in open_data(folder, "train").values()
    )


def test_a_document_is_found_wherever_it_is(folder: Path) -> None:
    document = TRAIN[0]
    lines = list(show_document(folder, document.id))
    assert [line.partition(",")[0] for line in lines if document.id in line] == ["code/train", "web/train"]
    assert f"  origin   {document.origin}" in lines


def test_a_token_leads_to_its_document_and_the_text_around_it(folder: Path) -> None:
    shards = open_data(folder, "train")["code"]
    place = Tracer(shards).trace_id(TRAIN[-1].id)
    traced = next(place)
    lines = list(show_token(folder, "train", "code", traced.start))
    assert TRAIN[-1].id in lines[0]
    assert lines[-1].startswith('  text     "<s>' + TRAIN[-1].text[:5].replace("\n", "\\n"))


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no train shards of books\. There are: code, web"):
        list(show_sample(folder, "train", "books", 1))
    with pytest.raises(DataError, match="an id has 32 digits"):
        list(show_document(folder, "xyz"))
    with pytest.raises(DataError, match=r"no source in .* has it"):
        list(show_document(folder, "0" * 32))
    with pytest.raises(DataError, match="Name one with --source"):
        list(show_token(folder, "train", None, 0))
    with pytest.raises(DataError, match=r"its train split has [\d,]+ tokens\. Choose 0 to"):
        list(show_token(folder, "train", "code", 10**9))


@pytest.mark.parametrize("arguments", [["--token", "3", "--source", "code"], ["--document", TRAIN[3].id], []])
def test_the_command_prints_documents(folder: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["data", "show", str(folder), *arguments])
    assert result.exit_code == 0, result.output
    assert "licence  PSF-2.0" in result.output


def test_questions_that_do_not_go_together_are_refused(folder: Path) -> None:
    two = CliRunner().invoke(app, ["data", "show", str(folder), "--token", "3", "--sample", "2"])
    assert isinstance(two.exception, ConfigError)
    assert "give one of --sample" in str(two.exception)
    for option in (["--source", "code"], ["--split", "train"]):
        for question in (["--document", TRAIN[0].id], ["--step", "3", "--run", "runs/x"]):
            both = CliRunner().invoke(app, ["data", "show", str(folder), *question, *option])
            assert isinstance(both.exception, ConfigError)
            assert f"data show: {option[0]} does not go with {question[0]}, which looks at" in str(both.exception)
    alone = CliRunner().invoke(app, ["data", "show", str(folder), "--step", "3"])
    assert "--step and --run belong together" in str(alone.exception)


def test_a_document_tells_the_file_and_the_record_it_was_read_in() -> None:
    origin = Origin("0" * 32, "https://a.org", "MIT", "en", "crawl/a.warc.gz#7")
    lines = list(describe(TracedDocument("code", "train", 0, 0, 9, origin)))
    assert lines[1:3] == ["  origin   https://a.org", "  read in  crawl/a.warc.gz#7"]


def test_an_origin_cannot_forge_lines_or_reach_the_terminal() -> None:
    origin = Origin("0" * 32, "a\n  licence  MIT\x1b[2J\x9b \u202e é \U000e0041", "GPL\r", "en")
    lines = list(describe(TracedDocument("code", "train", 0, 0, 9, origin)))
    assert lines[1] == r"  origin   a\u000a  licence  MIT\u001b[2J\u009b \u202e é \U000e0041"
    assert lines[2] == r"  licence  GPL\u000d, language en"
    assert len(lines) == 4


def test_a_text_cannot_reach_the_terminal(tmp_path: Path) -> None:
    text = "Clears the screen: \x9b2J, \x1b[2J and turns \u202e around.\n" * 20
    config = TokenizerConfig(vocab_size=400, train_characters=50_000)
    tokenizer = train_tokenizer({"code": lambda: iter(TEXTS)}, config, tmp_path / "tokenizer")
    told: dict[str, Any] = {"licence": "MIT", "provenance": {}, "validation_fraction": 0.2, "source": "code"}
    documents = [Document(f"{number} {text}", "a", "MIT", "", identify(f"{number} {text}")) for number in range(20)]
    write_shards(documents, tmp_path / "shards" / "code", tokenizer, shard_tokens=5000, workers=1, **told)
    assert all(line.isprintable() for line in show_sample(tmp_path, "train", "code", 3))
