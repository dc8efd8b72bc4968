from pathlib import Path

from llmtrain.config.loader import load_config
from llmtrain.config.show import describe_config
from tests.helpers.configs import write_tiny_config


def test_every_value_is_shown_with_its_origin(tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path)
    rows = {key: (value, origin) for key, value, origin in describe_config(load_config([path], ["run.seed=5"]))}
    assert rows["run.seed"] == ("5", "command line")
    assert rows["batch.micro_batch_size"][1].startswith(f"{path}:")
    assert rows["parallel.zero_stage"] == ("1", "default")


def test_values_inside_a_mapping_or_list_of_the_command_line_come_from_there(tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path)
    overrides = ["schedule={name: constant, warmup_steps: 3}", "data.sources={web: {weight: 2}}"]
    rows = {key: (value, origin) for key, value, origin in describe_config(load_config([path], overrides))}
    assert rows["schedule.name"] == ('"constant"', "command line")
    assert rows["schedule.warmup_steps"] == ("3", "command line")
    assert rows["data.sources.web.weight"] == ("2.0", "command line")
    assert rows["data.sources.web.max_epochs"] == ("null", "default")
    assert rows["data.folder"][1].startswith(f"{path}:")
