import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from data_pipelines.document import Document, identify
from data_pipelines.train_tokenizer import train_tokenizer
from data_pipelines.verify import verify_data
from data_pipelines.write_shards import write_shards
from llmtrain.config.corpus import TokenizerConfig
from llmtrain.errors import DataError
from tests.helpers.texts import stdlib_texts

DOCUMENTS = [piece for text in stdlib_texts() for piece in text.split("\n\n") if piece][:600]


def make(folder: Path, vocab_size: int = 400) -> None:
    def read() -> Iterator[str]:
        return iter(DOCUMENTS)

    config = TokenizerConfig(vocab_size=vocab_size, train_characters=50_000)
    tokenizer = train_tokenizer({"code": read}, config, folder / "tokenizer")
    settings: dict[str, Any] = {"licence": "PSF-2.0", "provenance": {}, "validation_fraction": 0.2}
    documents = [Document(text, "lib.py", "PSF-2.0", "python", identify(text)) for text in DOCUMENTS]
    for source in ("code", "text"):
        write_shards(
            documents, folder / "shards" / source, tokenizer, source=source, shard_tokens=20_000, workers=1, **settings
        )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "data"
    make(folder)
    return folder


@pytest.fixture
def own(prepared: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(prepared, tmp_path / "data")


def check(folder: Path) -> str:
    output = io.StringIO()
    verify_data(folder, Console(file=output))
    return output.getvalue()


def test_whole_data_passes_and_says_how_much_was_checked(prepared: Path) -> None:
    assert check(prepared).startswith("verify                 4 splits in ")


def test_every_flipped_bit_of_a_shard_is_found_and_the_remedy_works_as_told(own: Path) -> None:
    path = own / "shards" / "text" / "train" / "shard-00001.tokens"
    whole = path.read_bytes()
    for place in (100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError) as raised:
            check(own)
        assert str(raised.value).startswith(f"shard {path}: sha256 is ")
        assert str(raised.value).endswith(
            f"Write it again with `llmtrain data prepare`. Remove {path.parent} first, or add data.verify=full to that "
            "command."
        )


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        ("shards/code/train/shard-00000.tokens", r"shard-00000\.tokens: missing"),
        ("shards/code/validation/manifest.json", r"manifest\.json: cannot be read"),
        ("tokenizer/tokenizer.model", r"tokenizer .*: cannot be read"),
        ("shards/code/validation", "one split is missing of code"),
        ("shards", "no train shards here"),
    ],
)
def test_what_is_missing_is_named(own: Path, damaged: str, message: str) -> None:
    path = own / damaged
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(DataError, match=message):
        check(own)


def test_a_truncated_shard_is_named_with_both_sizes(own: Path) -> None:
    path = own / "shards" / "code" / "train" / "shard-00000.tokens"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=rf"shard-00000\.tokens: {size - 8:,} bytes, the manifest says {size:,} bytes"):
        check(own)


def test_a_damaged_tokenizer_is_found(own: Path) -> None:
    with (own / "tokenizer" / "tokenizer.model").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="damaged or replaced"):
        check(own)


def test_shards_of_another_tokenizer_are_found(own: Path, tmp_path: Path) -> None:
    make(tmp_path / "other", vocab_size=420)
    shutil.rmtree(own / "tokenizer")
    shutil.copytree(tmp_path / "other" / "tokenizer", own / "tokenizer")
    with pytest.raises(
        DataError, match=r"shards/code/train: was made with tokenizer \w{12}, the folder holds \w{12}\."
    ):
        check(own)
