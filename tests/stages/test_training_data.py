import json
import shutil
from pathlib import Path

import pytest

from llmtrain.config.data import DataConfig
from llmtrain.errors import DataError
from llmtrain.process.world import World
from llmtrain.stages.training_data import open_training_data

FOLDER = Path("data/tiny")


def open_data(world: World | None = None, **keys: object) -> object:
    config = DataConfig.model_validate_json(json.dumps({"folder": str(FOLDER), **keys}))
    return open_training_data(config, world or World())


def flip_shard(source: str) -> None:
    shard = FOLDER / "shards" / source / "train" / "shard-00000.tokens"
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)


def test_the_sources_of_the_mixture_are_opened_in_both_splits(own_project: Path) -> None:
    data = open_training_data(DataConfig(folder=FOLDER), World())
    assert list(data.train) == list(data.validation) == ["email", "json"]
    assert data.identity.keys() == {"tokenizer", "source email", "source json"}
    assert data.identity["tokenizer"] == data.tokenizer.sha256
    assert data.identity["source json"] == data.train["json"].manifest_sha256
    only = open_training_data(DataConfig.model_validate({"folder": FOLDER, "sources": {"json": {}}}), World())
    assert list(only.train) == list(only.validation) == ["json"]
    assert only.identity.keys() == {"tokenizer", "source json"}


def test_sources_and_splits_that_are_missing_are_named(own_project: Path) -> None:
    with pytest.raises(DataError, match=r"data/tiny: no train shards of web\. There are: email, json\."):
        open_data(sources={"web": {}, "json": {}})
    shutil.rmtree(FOLDER / "shards" / "json" / "validation")
    with pytest.raises(DataError, match=r"data/tiny: no validation shards of json\. There are: email\."):
        open_data()
    open_data(sources={"email": {}})
    shutil.rmtree(FOLDER / "shards")
    with pytest.raises(DataError, match=r"data/tiny: no train shards here\. Write them with `llmtrain data prepare"):
        open_data()
    shutil.rmtree(FOLDER / "tokenizer")
    with pytest.raises(DataError, match=r"tokenizer data/tiny/tokenizer: cannot be read"):
        open_data()


def test_shards_of_another_tokenizer_are_refused_with_both_digests(own_project: Path) -> None:
    for split in ("train", "validation"):
        path = FOLDER / "shards" / "json" / split / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_sha256": "0" * 64}))
    own = json.loads((FOLDER / "tokenizer" / "manifest.json").read_text())["sha256"]
    with pytest.raises(DataError, match="sources were made with different tokenizers: email"):
        open_data()
    with pytest.raises(DataError, match=f"was made with tokenizer {'0' * 12}, .*tokenizer holds {own[:12]}. Run"):
        open_data(sources={"json": {}})


def test_every_byte_is_checked_only_when_asked_and_by_one_of_the_ranks(own_project: Path) -> None:
    open_data(verify="full")
    flip_shard("json")
    open_data(verify="size")
    with pytest.raises(DataError, match=r"shard-00000\.tokens: sha256 is"):
        open_data(verify="full")
    found = 0
    for rank in range(2):
        try:
            open_data(World(rank, 2), verify="full")
        except DataError:
            found += 1
    assert found == 1
