from pathlib import Path

import pytest

from llmtrain.config.loader import load_config
from llmtrain.errors import ConfigError, MachineError
from llmtrain.process.slurm_script import SlurmRequest
from llmtrain.stages.launch_slurm import write_slurm_script
from tests.helpers.commands import run_command

REQUEST = SlurmRequest(["--", "tiny.yaml"], "python", nodes=2, ranks_per_node=2, gpus_per_node=0)


def test_the_plan_is_shown_and_the_script_has_the_name_of_the_run(
    own_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_slurm_script(load_config([Path("tiny.yaml")], []), REQUEST, None)
    output = capsys.readouterr().out
    assert "4 = data 4 x tensor 1 x pipeline 1" in output
    assert output.endswith("tiny.sbatch: read it, then queue it with: sbatch tiny.sbatch\n")
    assert path.read_text().startswith("#!/usr/bin/env bash\n")


def test_what_cannot_train_on_that_many_ranks_is_refused_and_nothing_is_written(own_project: Path) -> None:
    loaded = load_config([Path("tiny.yaml")], ["parallel.tensor_parallel_size=4", "model.num_attention_heads=4"])
    with pytest.raises(ConfigError):
        write_slurm_script(loaded, SlurmRequest(["--", "tiny.yaml"], "python", 3, 1, 0), None)
    assert list(Path().glob("*.sbatch")) == []


def test_a_place_that_cannot_be_written_is_named(own_project: Path) -> None:
    with pytest.raises(MachineError, match=r"none/job\.sbatch: cannot be written: No such file.*another --output"):
        write_slurm_script(load_config([Path("tiny.yaml")], []), REQUEST, Path("none/job.sbatch"))


def test_the_command_hands_on_files_and_overrides_as_they_are(own_project: Path) -> None:
    (own_project / "more $(x).yaml").write_text("run: {seed: 3}\n")
    override = "sampling.prompts=[\"$(touch pwned); 'x'\"]"
    options = ["--nodes", "2", "--ranks-per-node", "1", "--gpus-per-node", "0", "--output", "job.sbatch"]
    result = run_command(own_project, "launch", "slurm", "tiny.yaml", override, "--config", "more $(x).yaml", *options)
    assert result.returncode == 0, result.stderr
    line = next(line for line in Path("job.sbatch").read_text().splitlines() if line.startswith("set -- "))
    quoted = "'sampling.prompts=[\"$(touch pwned); '\"'\"'x'\"'\"'\"]'"
    assert line == f"set -- --config 'more $(x).yaml' -- tiny.yaml {quoted}"
