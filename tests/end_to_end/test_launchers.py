"""Every way to start ranks gives the run that `llmtrain pretrain --nproc 2` gives, bit for bit."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.commands import build_environment, read_curve, read_digest, run_command
from tests.helpers.nodes import pick_port, start_node

LAUNCH = Path(__file__).parents[2] / "launch"
# The gradient of one step of this run is ten times those around it; there rounding of the weights before is magnified.
STEEP_TOLERANCE = 1e-4
LAUNCHERS = ("torchrun.sh", "deepspeed.sh", "slurm.sbatch")
JOB_ID = 4242
# Sums of float32 in another order over ten steps.
RELATIVE_TOLERANCE = 1e-5


def make_slurm(folder: Path) -> Path:
    """A folder for PATH with `srun` and `scontrol`."""
    programs = folder / "slurm"
    programs.mkdir(exist_ok=True)
    scripts = {
        "srun": f'exec "{sys.executable}" "{LAUNCH.parent / "tests" / "helpers" / "fake_srun.py"}" "$@"',
        "scontrol": f'if [ "$1" = show ]; then echo localhost; else echo "$@" >>"{folder / "scontrol.log"}"; fi',
    }
    for name, line in scripts.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (programs / name).chmod(0o755)
    return programs


def start(launcher: str, project: Path, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start a launcher in the project as a user's shell would, on two ranks."""
    path = os.pathsep.join([str(make_slurm(folder)), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = build_environment() | {"PATH": path, "MASTER_PORT": str(pick_port())}
    environment["TORCH_EXTENSIONS_DIR"] = str(folder / "extensions")
    (folder / "extensions").mkdir(exist_ok=True)
    if launcher == "slurm.sbatch":
        environment |= {"SLURM_JOB_ID": str(JOB_ID), "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
        environment |= {"SLURM_JOB_NODELIST": "localhost", "FAKE_SLURM_FOLDER": str(folder)}
    return subprocess.Popen(
        ["bash", str(LAUNCH / launcher), *arguments],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_gives_the_same_run_and_compiles_nothing(
    launcher: str, project: Path, main_run: Path, tmp_path: Path
) -> None:
    name = f"by_{launcher.split('.')[0]}"
    process = start(launcher, project, tmp_path, "tiny.yaml", f"run.name={name}")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    run_folder = project / "runs" / name
    assert read_curve(run_folder) == read_curve(main_run)
    assert read_digest(run_folder, 10) == read_digest(main_run, 10)
    events = [json.loads(line) for line in (run_folder / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["started", "finished"]
    assert events[0]["world_size"] == 2
    assert list((tmp_path / "extensions").rglob("*")) == []
    assert not (tmp_path / "scontrol.log").exists()


def test_a_process_without_a_launcher_is_one_rank_and_agrees_within_rounding(project: Path, main_run: Path) -> None:
    result = run_command(project, "pretrain", "tiny.yaml", "run.name=alone")
    assert result.returncode == 0, result.stderr
    found, expected = read_curve(project / "runs" / "alone"), read_curve(main_run)
    assert [step for step, _ in found] == [step for step, _ in expected]
    for (_, ours), (_, theirs) in zip(found, expected, strict=True):
        norms = (ours.pop("train/grad_norm", 0.0), theirs.pop("train/grad_norm", 0.0))
        assert ours == pytest.approx(theirs, rel=RELATIVE_TOLERANCE)
        assert norms[0] == pytest.approx(norms[1], rel=STEEP_TOLERANCE)


def test_a_batch_script_without_srun_starts_its_ranks_itself(
    project: Path, main_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "2"}
    for name, value in batch.items():
        monkeypatch.setenv(name, value)
    result = run_command(project, "pretrain", "tiny.yaml", "--nproc", "2", "run.name=in_batch")
    assert result.returncode == 0, result.stderr
    assert read_curve(project / "runs" / "in_batch") == read_curve(main_run)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_without_a_configuration_shows_its_usage(launcher: str, project: Path, tmp_path: Path) -> None:
    process = start(launcher, project, tmp_path)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 2
    assert output.startswith("usage: ")
    assert f"launch/{launcher} CONFIG [section.key=value ...]" in output


def test_torchrun_on_a_port_that_is_taken_says_so(project: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        node = start_node(project, [], {"MASTER_PORT": str(port)})
        output, _ = node.communicate(timeout=60)
    assert node.returncode == 3
    assert output.startswith(f"torchrun.sh: port {port} is taken on this machine. Set MASTER_PORT to a free port")
    assert "Traceback" not in output


def test_torchrun_without_the_other_node_ends_and_says_how_many_came(project: Path) -> None:
    variables = {"NODES": "2", "NODE_RANK": "0", "MASTER_PORT": str(pick_port()), "MEETING_SECONDS": "2"}
    node = start_node(project, [], variables)
    output, _ = node.communicate(timeout=120)
    assert node.returncode == 1
    assert "1/2 clients joined" in output


def test_the_slurm_script_outside_of_a_job_says_how_to_queue_it(project: Path) -> None:
    command = ["bash", str(LAUNCH / "slurm.sbatch"), "tiny.yaml"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    result = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: sbatch ")


def test_a_slurm_job_near_its_time_limit_saves_reports_and_is_queued_again(project: Path, tmp_path: Path) -> None:
    overrides = ["run.name=requeued", "training.train_steps=2000", "tracking.mlflow=true"]
    process = start("slurm.sbatch", project, tmp_path, "tiny.yaml", *overrides)
    run_folder = project / "runs" / "requeued"
    deadline = time.monotonic() + 60
    while not (run_folder / "metrics.jsonl").is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGUSR1)
    output, _ = process.communicate(timeout=90)
    # Rank 1 ends first, while rank 0 still sends its metrics to MLflow: neither is cut short.
    assert process.returncode == 75, output
    assert (tmp_path / "scontrol.log").read_text() == f"requeue {JOB_ID}\n"
    stopped = json.loads((run_folder / "events.jsonl").read_text().splitlines()[-1])
    assert stopped["event"] == "stopped"
    assert (run_folder / "checkpoints" / f"step-{stopped['step']:08d}" / "manifest.json").is_file()
    assert "Traceback" not in output
