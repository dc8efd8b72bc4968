import json
from pathlib import Path

import pytest

from data_pipelines.stages import Stages
from llmtrain.errors import DataError


def test_a_stage_is_finished_for_its_fingerprint_only_and_across_starts(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    stages = Stages(folder)
    assert not stages.is_finished("tokenizer", "print")
    stages.finish("tokenizer", "print", {"pieces": 400})
    for known in (stages, Stages(folder)):
        assert known.is_finished("tokenizer", "print")
        assert not known.is_finished("tokenizer", "other")
        assert not known.is_finished("shards", "print")
        assert known.result("tokenizer") == {"pieces": 400}
    assert [path.name for path in folder.iterdir()] == ["stages.json"]


def test_a_started_stage_is_not_finished_until_it_is_again(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    stages.start("tokenizer")
    assert list(tmp_path.iterdir()) == []
    stages.finish("tokenizer", "print", 1)
    stages.finish("shards", "print", 2)
    stages.start("tokenizer")
    again = Stages(tmp_path)
    assert not again.is_finished("tokenizer", "print")
    assert again.is_finished("shards", "print")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"3", b'{"a": 1}', b'{"a": {"fingerprint": "x"}}', b'{"a": ["fingerprint", 1]}'],
)
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "stages.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        Stages(tmp_path)
    assert str(raised.value).startswith(f"{path}: damaged: ")
    assert str(raised.value).endswith(". Remove it: stages are done again.")
    path.unlink()
    assert not Stages(tmp_path).is_finished("a", "x")


def test_the_file_is_for_people_too(tmp_path: Path) -> None:
    Stages(tmp_path).finish("documents/é", "print", [])
    text = (tmp_path / "stages.json").read_text(encoding="utf-8")
    assert "documents/é" in text
    assert json.loads(text) == {"documents/é": {"fingerprint": "print", "result": []}}
