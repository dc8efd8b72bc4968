from pathlib import Path

from llmtrain.config.compare import find_changes
from llmtrain.config.loader import load_config
from llmtrain.config.schema import build_json_schema
from llmtrain.config.show import describe_config
from tests.helpers.configs import load_tiny_config, write_tiny_config


def test_every_value_is_shown_with_its_origin(tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path)
    rows = {key: (value, origin) for key, value, origin in describe_config(load_config([path], ["run.seed=5"]))}
    assert rows["run.seed"] == ("5", "command line")
    assert rows["batch.micro_batch_size"][1].startswith(f"{path}:")
    assert rows["parallel.zero_stage"] == ("1", "default")


def test_changes_between_two_configurations_are_listed_by_key(tmp_path: Path) -> None:
    old = load_tiny_config(tmp_path)
    new = load_tiny_config(tmp_path, "run.seed=8", "data.sources.web.weight=2")
    assert find_changes(old, old) == []
    assert ("run.seed", 7, 8) in find_changes(old, new)
    assert ("data.sources.web.weight", None, 2.0) in find_changes(old, new)


def test_the_schema_describes_keys_for_editors() -> None:
    schema = build_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["BatchConfig"]["properties"]["sequence_length"]["description"] == "Tokens per sequence."
