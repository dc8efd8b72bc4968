import json
import shutil
from pathlib import Path

import pytest

from llmtrain.errors import CheckpointError
from llmtrain.stages.checkpoints import print_checkpoints, verify_checkpoints
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
