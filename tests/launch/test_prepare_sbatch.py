"""The batch script that prepares data, with a stand-in for Python that tells how it was called."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "launch" / "prepare.sbatch"


def run(folder: Path, *arguments: str, **slurm: str) -> "subprocess.CompletedProcess[str]":
    python = folder / "python"
    python.write_text('#!/bin/sh\nprintf "[%s]" "$@"\n')
    python.chmod(0o755)
    environment = {"PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin", **slurm}
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], capture_output=True, text=True, env=environment, check=False, timeout=30
    )


@pytest.mark.parametrize(
    ("slurm", "call"),
    [
        ({}, "[-m][llmtrain][data][prepare][--][my config.yaml][data.folder=a b]"),
        (
            {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "64"},
            "[-m][llmtrain][data][prepare][--task][3][--tasks][64][--][my config.yaml][data.folder=a b]",
        ),
    ],
)
def test_a_task_of_an_array_does_its_share_and_a_job_does_the_rest(
    slurm: dict[str, str], call: str, tmp_path: Path
) -> None:
    done = run(tmp_path, "my config.yaml", "data.folder=a b", SLURM_JOB_ID="7", **slurm)
    assert (done.returncode, done.stdout) == (0, call)


def test_outside_of_slurm_or_without_a_configuration_it_tells_its_use(tmp_path: Path) -> None:
    for done in (run(tmp_path, "config.yaml"), run(tmp_path, SLURM_JOB_ID="7")):
        assert done.returncode == 2
        assert done.stderr.startswith("usage: sbatch [--array 0-N] launch/prepare.sbatch CONFIG")
