from pathlib import Path

from llmtrain.config.compare import find_changes, flatten
from tests.helpers.configs import load_tiny_config


def test_every_leaf_is_listed_once_under_its_dotted_key_as_a_plain_value(tmp_path: Path) -> None:
    leaves = flatten(load_tiny_config(tmp_path, "data.sources={web: {weight: 2}}"))
    assert leaves["run.root"] == "runs"
    assert leaves["optimizer.betas"] == [0.9, 0.95]
    assert leaves["data.sources.web.weight"] == 2.0
    assert leaves["data.sources.web.max_epochs"] is None
    assert leaves["corpus"] is None
    assert not any(isinstance(value, dict) and value for value in leaves.values())


def test_an_empty_mapping_is_a_leaf(tmp_path: Path) -> None:
    assert flatten(load_tiny_config(tmp_path))["data.sources"] == {}


def test_equal_configurations_have_no_changes_however_they_were_written(tmp_path: Path) -> None:
    config = load_tiny_config(tmp_path)
    assert find_changes(config, config) == []
    assert (
        find_changes(config, load_tiny_config(tmp_path, "optimizer.learning_rate=0.01", "parallel.zero_stage=1")) == []
    )


def test_changes_come_in_the_order_of_keys_with_both_values(tmp_path: Path) -> None:
    old = load_tiny_config(tmp_path)
    new = load_tiny_config(
        tmp_path, "training.train_steps=20", "optimizer.betas=[0.9, 0.99]", "batch.micro_batch_size=4"
    )
    assert find_changes(old, new) == [
        ("batch.micro_batch_size", 2, 4),
        ("optimizer.betas", [0.9, 0.95], [0.9, 0.99]),
        ("training.train_steps", 10, 20),
    ]
    assert find_changes(new, old) == [(key, after, before) for key, before, after in find_changes(old, new)]


def test_keys_of_another_variant_and_of_a_new_section_are_changes(tmp_path: Path) -> None:
    old = load_tiny_config(tmp_path)
    changes = find_changes(old, load_tiny_config(tmp_path, "data.sources={web: {weight: 2}}"))
    assert changes == [("data.sources", {}, None), ("data.sources.web.weight", None, 2.0)]
    changes = find_changes(old, load_tiny_config(tmp_path, "schedule={name: wsd, decay_steps: 3}"))
    assert changes == [("schedule.decay_steps", None, 3), ("schedule.name", "cosine", "wsd")]
