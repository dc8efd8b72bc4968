import hashlib
import json
import shutil
from pathlib import Path

import pytest

from llmtrain.checkpoint.read import read_state_dict
from llmtrain.errors import CheckpointError, ConfigError, DataError
from llmtrain.stages.finished_run import load_finished_run
from tests.checkpoint.small import flip_bit


def replace_tokenizer(folder: Path) -> None:
    """Another tokenizer, whole in itself: the same model with one more byte."""
    model = (folder / "tokenizer.model").read_bytes() + b"\x9a\x06\x00"
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "tokenizer.model").write_bytes(model)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": hashlib.sha256(model).hexdigest()}))


def test_the_newest_checkpoint_is_taken_unless_a_step_is_given(run_folder: Path) -> None:
    newest, older = load_finished_run(run_folder, None), load_finished_run(run_folder, 5)
    assert (newest.manifest.step, older.manifest.step) == (10, 5)
    assert newest.config.run.name == "main"
    assert newest.tokenizer.vocab_size == newest.shape.vocab_size == 400
    expected = read_state_dict(run_folder / "checkpoints" / "step-00000005")
    assert older.weights.keys() == expected.keys()
    assert all(older.weights[name].equal(expected[name]) for name in expected)
    assert not all(newest.weights[name].equal(expected[name]) for name in expected)


def test_a_step_that_was_not_saved_lists_those_that_were(run_folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoints: no checkpoint of step 7\. There are: 5, 10\.$"):
        load_finished_run(run_folder, 7)
    shutil.rmtree(run_folder / "checkpoints")
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7\. There are: none\.$"):
        load_finished_run(run_folder, 7)


def test_a_run_without_checkpoints_says_how_to_train(run_folder: Path) -> None:
    shutil.rmtree(run_folder / "checkpoints")
    with pytest.raises(CheckpointError, match=r"no checkpoint yet\. Train first: llmtrain pretrain CONFIG\.$"):
        load_finished_run(run_folder, None)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run here, config\.yaml is missing\. Give a run folder such as"):
        load_finished_run(tmp_path, None)


def test_a_damaged_checkpoint_is_passed_over_but_refused_by_its_step(run_folder: Path) -> None:
    flip_bit(run_folder / "checkpoints" / "step-00000010" / "rank00001.safetensors", -1)
    assert load_finished_run(run_folder, None).manifest.step == 5
    with pytest.raises(
        CheckpointError, match=r"rank00001\.safetensors: sha256 is .*: damaged\. Choose another step\.$"
    ):
        load_finished_run(run_folder, 10)
    flip_bit(run_folder / "checkpoints" / "step-00000005" / "rank00000.safetensors", -1)
    with pytest.raises(CheckpointError, match="2 checkpoints, none is whole"):
        load_finished_run(run_folder, None)


def test_another_tokenizer_than_the_one_of_training_is_refused(own_project: Path, main_run: Path) -> None:
    assert load_finished_run(main_run, 10).manifest.step == 10
    replace_tokenizer(own_project / "data" / "tiny" / "tokenizer")
    with pytest.raises(DataError, match=r"tokenizer: sha256 is \w{12}, .*step-00000010 was trained with \w{12}\. Put"):
        load_finished_run(main_run, 10)
    shutil.rmtree(own_project / "data")
    with pytest.raises(DataError, match=r"tokenizer data/tiny/tokenizer: cannot be read.*llmtrain data prepare CONFIG"):
        load_finished_run(main_run, 10)
