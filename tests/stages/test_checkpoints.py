import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmtrain.checkpoint.read import read_state_dict
from llmtrain.errors import CheckpointError
from llmtrain.stages.checkpoints import convert, print_checkpoints, show_checkpoint, verify_checkpoints
from tests.checkpoint.small import flip_bit


def read_rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in text.splitlines() if "│" in line]


def test_checkpoints_are_listed_newest_first_with_size_and_loss(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_checkpoints(run_folder)
    rows = read_rows(capsys.readouterr().out)
    assert [row[0] for row in rows] == ["10", "5"]
    for row, name in zip(rows, ("step-00000010", "step-00000005"), strict=True):
        checkpoint = run_folder / "checkpoints" / name
        loss = json.loads((checkpoint / "manifest.json").read_text())["validation_loss"]
        size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
        assert row[1:] == [f"{size / 1e6:,.1f}", f"{loss:.4f}", "2", "yes (sizes)"]


def test_a_damaged_checkpoint_is_listed_with_its_damage(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim = run_folder / "checkpoints" / "step-00000010" / "rank00000.safetensors"
    size = victim.stat().st_size
    victim.write_bytes(victim.read_bytes()[:-1])
    print_checkpoints(run_folder)
    text = capsys.readouterr().out
    assert [(row[0], row[-1]) for row in read_rows(text)] == [("10", "no"), ("5", "yes (sizes)")]
    message = f"{victim}: {size - 1:,} bytes, the manifest says {size:,}. Choose another step."
    assert text.splitlines()[-1] == message


def test_verification_names_every_damaged_checkpoint_after_looking_at_all(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verify_checkpoints(run_folder)
    assert capsys.readouterr().out == "step-00000010: whole\nstep-00000005: whole\n"
    victims = [run_folder / "checkpoints" / f"step-{step:08d}" / "rank00001.safetensors" for step in (10, 5)]
    flip_bit(victims[0], -1)
    with pytest.raises(CheckpointError) as caught:
        verify_checkpoints(run_folder)
    assert capsys.readouterr().out == "step-00000005: whole\n"
    assert str(caught.value).startswith(f"{victims[0]}: sha256 is ")
    flip_bit(victims[1], -1)
    with pytest.raises(CheckpointError) as caught:
        verify_checkpoints(run_folder)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [str(victim) for victim in victims]


def test_a_run_without_checkpoints_says_how_to_train(run_folder: Path) -> None:
    shutil.rmtree(run_folder / "checkpoints")
    for function in (print_checkpoints, verify_checkpoints):
        with pytest.raises(
            CheckpointError, match=r"checkpoints: no checkpoint\. Train first: llmtrain pretrain CONFIG"
        ):
            function(run_folder)


def test_a_checkpoint_is_shown_with_what_the_manifest_says(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_checkpoint(run_folder, 5)
    text = capsys.readouterr().out
    manifest = json.loads((run_folder / "checkpoints" / "step-00000005" / "manifest.json").read_text())
    facts = {words[0]: " ".join(words[1:]) for line in text.splitlines() if (words := line.split())}
    assert facts["step"] == "5"
    assert facts["samples"] == "40"
    assert facts["weights"] == f"digest {manifest['weights_digest']}"
    assert facts["validation"] == f"loss {manifest['validation_loss']:.4f}"
    assert facts["continues"] == "nothing"
    assert facts["layout"].startswith("world_size 2, data_parallel_size 2, tensor_parallel_size 1")
    assert f"torch {manifest['versions']['torch']}" in facts["versions"]
    shape = manifest["tensors"]["weights/final_norm.weight"]["shape"]
    assert facts["final_norm.weight"] == f"{shape[0]} 1"
    assert facts["blocks.*.feed_forward.down.weight"] == "32 x 64 2"
    assert text.splitlines()[-1] == f"configuration: as in {run_folder / 'config.yaml'}"


def test_the_newest_is_shown_by_default_and_changes_since_then_are_named(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_folder / "config.yaml"
    config.write_text(config.read_text().replace("keep_last: 2", "keep_last: 7"))
    show_checkpoint(run_folder, None)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert ["step", "10"] in [line.split() for line in lines]
    assert lines[-2:] == [
        f"configuration: 1 keys differ from {config}:",
        "checkpoint.keep_last: 2 when saved, 7 now",
    ]
    config.write_text("nonsense: 1\n")
    show_checkpoint(run_folder, None)
    assert "configuration: cannot be compared: " in capsys.readouterr().out


def test_a_step_that_was_not_saved_and_a_damaged_one_are_refused(run_folder: Path, tmp_path: Path) -> None:
    missing = r"no checkpoint of step 7\. There are: 5, 10\."
    with pytest.raises(CheckpointError, match=missing):
        show_checkpoint(run_folder, 7)
    with pytest.raises(CheckpointError, match=missing):
        convert(run_folder, 7, tmp_path / "out", "float32")
    victim = run_folder / "checkpoints" / "step-00000010" / "rank00000.safetensors"
    flip_bit(victim, -1)
    with pytest.raises(CheckpointError, match=r"rank00000\.safetensors: sha256 is"):
        convert(run_folder, 10, tmp_path / "out", "float32")
    victim.unlink()
    with pytest.raises(CheckpointError, match=r"rank00000\.safetensors: missing"):
        show_checkpoint(run_folder, 10)
    assert not (tmp_path / "out").exists()


def test_the_weights_of_a_run_are_converted_as_they_are(run_folder: Path, tmp_path: Path) -> None:
    convert(run_folder, 5, tmp_path / "out", "float32")
    found = load_file(tmp_path / "out" / "model.safetensors")
    expected = read_state_dict(run_folder / "checkpoints" / "step-00000005")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
