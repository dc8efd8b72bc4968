from pathlib import Path

import pytest
import yaml

from llmtrain.config.loader import validate
from llmtrain.stages.main_job import finish_main_job
from llmtrain.stages.run_folder import load_run_config


def test_the_end_of_the_main_job_shows_text_summary_and_what_to_do_next(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = yaml.safe_load((run_folder / "config.yaml").read_text())
    values["run"]["root"] = str(run_folder.parent)
    values["sampling"]["prompts"] = ["def [b]", "import "]
    config = validate(values, {})
    assert config.run.folder == run_folder
    assert load_run_config(run_folder) != config
    finish_main_job(config)
    text = capsys.readouterr().out
    assert (run_folder / "export" / "model.safetensors").is_file()
    assert text.index("def [b]") < text.index("import ") < text.index("bigram") < text.index("curves")
    assert f"curves        {run_folder / 'curves.png'}" in text
    assert f"llmtrain generate {run_folder} --prompt 'def '" in text
    assert f"llmtrain dashboard {run_folder.parent}" in text
    assert f"model='{run_folder / 'export'}'" in text
