from pathlib import Path

import pytest

from llmtrain.checkpoint.find import list_checkpoints
from llmtrain.checkpoint.manifest import parse_step
from llmtrain.checkpoint.retention import apply_retention, choose_steps_to_keep
from llmtrain.config.checkpoint import CheckpointConfig
from tests.checkpoint.small import file_name, make_checkpoint


def steps_in(folder: Path) -> list[int | None]:
    return [parse_step(checkpoint) for checkpoint in reversed(list_checkpoints(folder))]


def test_newest_periodic_and_best_stay_and_nothing_else(tmp_path: Path) -> None:
    config = CheckpointConfig(keep_last=2, keep_every_steps=50, keep_best=True)
    losses = {step: abs(step - 130) / 100 for step in range(10, 210, 10)}
    for step, loss in losses.items():
        make_checkpoint(tmp_path, step, num_ranks=1, validation_loss=loss)
        apply_retention(tmp_path, config)
    assert steps_in(tmp_path) == [50, 100, 130, 150, 190, 200]
    assert sorted(path.name for path in tmp_path.iterdir()) == [p.name for p in reversed(list_checkpoints(tmp_path))]


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (CheckpointConfig(keep_last=1, keep_best=False), {50}),
        (CheckpointConfig(keep_last=3, keep_best=False), {30, 40, 50}),
        (CheckpointConfig(keep_last=1, keep_best=True), {20, 50}),
        (CheckpointConfig(keep_last=1, keep_best=False, keep_every_steps=20), {20, 40, 50}),
        (CheckpointConfig(keep_last=9), {10, 20, 30, 40, 50}),
    ],
)
def test_rules_add_up(config: CheckpointConfig, kept: set[int]) -> None:
    assert choose_steps_to_keep({10: 3.0, 20: 1.0, 30: None, 40: 2.0, 50: None}, config) == kept


def test_later_of_two_equally_good_checkpoints_is_the_best() -> None:
    config = CheckpointConfig(keep_last=1)
    assert choose_steps_to_keep({1: 2.0, 2: 2.0, 3: 5.0}, config) == {2, 3}


def test_damaged_checkpoint_neither_counts_nor_is_deleted(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        make_checkpoint(tmp_path, step)
    (tmp_path / "step-00000003" / file_name(0)).unlink()
    deleted = apply_retention(tmp_path, CheckpointConfig(keep_last=1, keep_best=False))
    assert [path.name for path in deleted] == ["step-00000001"]
    assert steps_in(tmp_path) == [2, 3]
