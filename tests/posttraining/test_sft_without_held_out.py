"""Fine-tuning through the command line, where it is unusual."""

import json
from pathlib import Path

from tests.posttraining.stage_files import read_numbers, run_stage, write_stage_config


def test_all_records_may_be_learned_with_none_held_out(
    tmp_path: Path, model_folders: dict[str, Path], conversations_file: Path
) -> None:
    write_stage_config(tmp_path, model_folders["llama"], conversations_file)
    run_stage(tmp_path, "sft", "sft.validation_fraction=0", "sft.train_epochs=1")
    stage = tmp_path / "runs" / "one" / "sft"
    summary = json.loads((stage / "summary.json").read_text())
    assert summary["held_out_loss"] == {"before": None, "after": None}
    assert summary["records"]["held_out"] == {}
    assert {name.partition("/")[0] for _, name, _ in read_numbers(stage)} == {"train"}
