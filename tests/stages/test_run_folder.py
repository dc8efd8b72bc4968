from pathlib import Path

import pytest

from llmtrain.errors import ConfigError, MachineError
from llmtrain.stages.run_folder import (
    CONFIG_NAME,
    check_continuation,
    load_run_config,
    locked_run_folder,
    start_run_folder,
)
from tests.helpers.configs import load_tiny_config


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_new_run_writes_its_resolved_configuration(tmp_path: Path) -> None:
    config = load_tiny_config(tmp_path)
    with locked_run_folder(config.run.folder):
        start_run_folder(config)
    assert load_run_config(config.run.folder) == config


def test_another_model_in_the_same_folder_is_refused_with_every_difference(tmp_path: Path) -> None:
    config = load_tiny_config(tmp_path)
    config.run.folder.mkdir(parents=True)
    start_run_folder(config)
    before = (config.run.folder / CONFIG_NAME).read_bytes()
    with pytest.raises(ConfigError) as caught:
        start_run_folder(load_tiny_config(tmp_path, "model.num_layers=3", "run.seed=8", "training.train_steps=20"))
    text = str(caught.value)
    assert "model.num_layers: 2 there, 3 here" in text
    assert "run.seed: 7 there, 8 here" in text
    assert "train_steps" not in text
    assert "Choose another run.name" in text
    assert (config.run.folder / CONFIG_NAME).read_bytes() == before


def test_a_longer_run_on_another_layout_may_continue(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = load_tiny_config(tmp_path)
    config.run.folder.mkdir(parents=True)
    start_run_folder(config)
    with caplog.at_level("INFO"):
        check_continuation(load_tiny_config(tmp_path, "training.train_steps=20", "parallel.zero_stage=3"))
    assert "training.train_steps: 10 until now, 20 from here on" in caplog.text


def test_a_cap_on_epochs_may_be_raised_and_a_weight_may_not_change(tmp_path: Path) -> None:
    config = load_tiny_config(tmp_path, "data.sources={web: {weight: 1.0, max_epochs: 2}}")
    config.run.folder.mkdir(parents=True)
    start_run_folder(config)
    check_continuation(load_tiny_config(tmp_path, "data.sources={web: {weight: 1.0, max_epochs: 5}}"))
    check_continuation(load_tiny_config(tmp_path, "data.sources={web: {weight: 1.0}}"))
    with pytest.raises(ConfigError, match=r"data\.sources\.web\.weight: 1\.0 there, 2\.0 here"):
        check_continuation(load_tiny_config(tmp_path, "data.sources={web: {weight: 2.0, max_epochs: 2}}"))


def test_stages_may_change_and_a_source_may_join_for_one(tmp_path: Path) -> None:
    config = load_tiny_config(tmp_path, "data.sources={web: {weight: 1.0}}")
    config.run.folder.mkdir(parents=True)
    start_run_folder(config)
    stage = "data.stages=[{from_step: 5, weights: {books: 1}}]"
    check_continuation(load_tiny_config(tmp_path, "data.sources={web: {weight: 1.0}, books: {weight: 0}}", stage))
    with pytest.raises(ConfigError, match=r"data\.sources\.books\.weight: None there, 0\.5 here"):
        check_continuation(load_tiny_config(tmp_path, "data.sources={web: {weight: 1.0}, books: {weight: 0.5}}"))


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    folder = load_tiny_config(tmp_path).run.folder
    refused = pytest.raises(ConfigError, match=r"a run is using this folder \(process \d+ on ")
    with locked_run_folder(folder), refused, locked_run_folder(folder):
        pass
    with locked_run_folder(folder):
        assert (folder / "run.lock").exists()


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run here"):
        load_run_config(tmp_path / "nothing")


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    config = load_tiny_config(tmp_path)
    Path("runs").write_text("a file is in the way")
    message = r"runs/tiny: cannot be written: Not a directory\. Free some space or make the folder writable"
    with pytest.raises(MachineError, match=message), locked_run_folder(config.run.folder):
        pass
    Path("runs").unlink()
    config.run.folder.mkdir(parents=True)
    (config.run.folder / f"{CONFIG_NAME}.tmp").symlink_to("/dev/full")
    with locked_run_folder(config.run.folder):
        with pytest.raises(MachineError, match=r"runs/tiny/config\.yaml: cannot be written: No space left on device"):
            start_run_folder(config)
        assert not (config.run.folder / CONFIG_NAME).exists()
    (config.run.folder / "run.lock").unlink()
    (config.run.folder / "run.lock").symlink_to("/dev/full")
    with pytest.raises(MachineError, match=r"runs/tiny: cannot be written"), locked_run_folder(config.run.folder):
        pass
