"""Documents -> files and manifest: whole, equal every time, done once."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.document import read_documents
from data_pipelines.instructions import make
from data_pipelines.instructions.make import MAKER_VERSION, make_instructions
from llmtrain.config.instructions import InstructionsConfig
from llmtrain.config.records import RecordsConfig
from llmtrain.conversations.read import read_conversations, read_preferences
from llmtrain.conversations.split import find_shared_prompts, split_held_out
from llmtrain.errors import ConfigError, DataError
from llmtrain.process.folder_lock import locked_folder

CONFIG = InstructionsConfig()


@pytest.fixture(scope="module")
def made(documents: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    output = tmp_path_factory.mktemp("made") / "instructions"
    return output, make_instructions(documents, output, CONFIG, {"wiki": "CC-BY-SA-3.0"}, 0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_kind_has_records_and_preferences(made: tuple[Path, dict[str, Any]]) -> None:
    output, manifest = made
    names = [f"{folder}/{kind}.jsonl" for kind in CONFIG.kinds for folder in ("instructions", "preferences")]
    assert sorted(manifest["files"]) == sorted(names)
    assert sorted(contents(output)) == sorted([*names, "manifest.json"])
    assert all(told["records"] for told in manifest["files"].values())


def test_the_manifest_tells_what_was_made_of_what(made: tuple[Path, dict[str, Any]], documents: Path) -> None:
    output, manifest = made
    assert json.loads((output / "manifest.json").read_text()) == manifest
    wiki = documents / "wiki.jsonl.zst"
    parent = {"file": wiki.name, "sha256": hashlib.sha256(wiki.read_bytes()).hexdigest(), "licence": "CC-BY-SA-3.0"}
    told = manifest["files"]["instructions/definition.jsonl"]
    assert told["parents"] == [parent]
    assert told["licence"] == "CC-BY-SA-3.0"
    assert manifest["files"]["instructions/manual.jsonl"]["licence"] == "PSF-2.0"
    assert (manifest["maker_version"], told["maker_version"]) == (MAKER_VERSION, MAKER_VERSION)
    for name, file in manifest["files"].items():
        content = (output / name).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert (file["bytes"], file["records"]) == (len(content), content.count(b"\n"))
        assert file["candidates"] == file["records"] + sum(file["left_out"].values())


def test_every_answer_stands_in_a_document(made: tuple[Path, dict[str, Any]], documents: Path) -> None:
    texts = [" ".join(d.text.split()) for path in documents.iterdir() for d in read_documents(path)]
    for kind in ("section", "explain", "manual"):
        records = read_conversations(RecordsConfig(paths=(str(made[0] / f"instructions/{kind}.jsonl"),)), kind)
        for item in records.items:
            answer = " ".join(item.messages[-1].content.split()).removesuffix(".").replace("(plural abaci)", "")
            assert any(answer.split(",")[-1].strip() in text for text in texts), answer


def test_what_is_made_is_read_and_split_without_leaks(made: tuple[Path, dict[str, Any]]) -> None:
    conversations = read_conversations(RecordsConfig(paths=(str(made[0] / "instructions/*.jsonl"),)), "made")
    preferences = read_preferences(RecordsConfig(paths=(str(made[0] / "preferences/*.jsonl"),)), "made")
    assert conversations.left_out == preferences.left_out == {}
    train, held_out = split_held_out(conversations.items, 0.1)
    pairs, held_out_pairs = split_held_out(preferences.items, 0.1)
    assert find_shared_prompts([*train, *pairs], [*held_out, *held_out_pairs]) == []


def test_length_does_not_tell_the_better_answer(made: tuple[Path, dict[str, Any]]) -> None:
    told = [made[1]["files"][f"preferences/{kind}.jsonl"] for kind in ("docstring", "explain")]
    longer = sum(file["records"] * file["chosen_longer_fraction"] for file in told)
    assert 0.45 <= longer / sum(file["records"] for file in told) <= 0.55


def test_equal_input_gives_equal_files_and_another_seed_does_not(
    made: tuple[Path, dict[str, Any]], documents: Path, tmp_path: Path
) -> None:
    make_instructions(documents, tmp_path / "again", CONFIG, {"wiki": "CC-BY-SA-3.0"}, 0)
    assert contents(tmp_path / "again") == contents(made[0])
    make_instructions(documents, tmp_path / "other", CONFIG, {"wiki": "CC-BY-SA-3.0"}, 1)
    name = "preferences/docstring.jsonl"
    assert contents(tmp_path / "other")[name] != contents(made[0])[name]


def test_done_work_is_recognised_and_changed_work_done_again(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, config = tmp_path / "out", InstructionsConfig(kinds=("manual",))
    first = make_instructions(documents, output, config, {}, 0)
    with monkeypatch.context() as patch:
        patch.setattr(make, "_draft_all", None)
        assert make_instructions(documents, output, config, {}, 0) == first
    (output / "instructions/manual.jsonl").write_text("")
    assert make_instructions(documents, output, config, {}, 0) == first
    assert (output / "instructions/manual.jsonl").stat().st_size
    other = make_instructions(documents, output, InstructionsConfig(kinds=("section",)), {}, 0)
    assert other["inputs_sha256"] != first["inputs_sha256"]
    assert sorted(contents(output)) == ["instructions/section.jsonl", "manifest.json", "preferences/section.jsonl"]
    monkeypatch.setattr(make, "MAKER_VERSION", MAKER_VERSION + 1)
    assert make_instructions(documents, output, config, {}, 0)["maker_version"] == MAKER_VERSION + 1


def test_a_failure_leaves_nothing_or_what_was_there(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = InstructionsConfig(kinds=("manual",))
    make_instructions(documents, tmp_path / "old", config, {}, 0)
    before = contents(tmp_path / "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(make, "make_preferences", fail)
    for output in (tmp_path / "new", tmp_path / "old"):
        with pytest.raises(DataError, match=r"could not be written: \[Errno 28\] No space left on device\. Free some"):
            make_instructions(documents, output, config, {}, 1)
    assert contents(tmp_path / "old") == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["old"]


def test_two_makers_do_not_write_one_folder(documents: Path, tmp_path: Path) -> None:
    with (
        locked_folder(tmp_path, "out.lock", "a maker", "Wait."),
        pytest.raises(ConfigError, match=r"a maker of instructions is using this folder \(process \d+ on .*\)\. Wait"),
    ):
        make_instructions(documents, tmp_path / "out", CONFIG, {}, 0)


def test_what_cannot_be_done_is_refused(documents: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no documents \(\*\.jsonl\.zst\)\. Run `llmtrain data prepare` first\."):
        make_instructions(tmp_path, tmp_path / "out", CONFIG, {}, 0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(DataError, match=r"holds something that was not made by this\. Choose another folder\."):
        make_instructions(documents, tmp_path / "mine", CONFIG, {}, 0)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"
    short = InstructionsConfig(max_response_characters=1)
    with pytest.raises(DataError, match=r"nothing can be made of these documents\. Choose other kinds, or longer"):
        make_instructions(documents, tmp_path / "out", short, {}, 0)
    assert not (tmp_path / "out").exists()
