import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmtrain.errors import ConfigError
from llmtrain.process.slurm_script import SlurmRequest, build_script, build_shipped_script, write_script

ROOT = Path(__file__).parents[2]
PAYLOADS = [
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "&& touch pwned",
    "| touch pwned",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "a\ntouch pwned\n",
    "a\n#SBATCH --wrap=touch\n",
    "two  words\tand a tab",
    "-oProxyCommand=touch pwned",
    "--help",
    "> pwned",
    "${HOME} $0 ~ * ? [a-z] {a,b} !!",
    "\\",
    "ünïcode ☃",
    "",
]
REQUEST = SlurmRequest(["--", "tiny.yaml"], sys.executable, nodes=2, ranks_per_node=4, gpus_per_node=4)


def test_the_shipped_script_is_the_same_text() -> None:
    assert (ROOT / "launch" / "slurm.sbatch").read_text() == build_shipped_script()


def run_script(folder: Path, text: str) -> list[list[str]]:
    """Run a script with stand-ins for Slurm; what each task was called with."""
    programs = folder / "programs"
    programs.mkdir()
    fake = ROOT / "tests" / "helpers" / "fake_srun.py"
    stand_ins = {
        "srun": f'exec "{sys.executable}" "{fake}" "$@"',
        "scontrol": "echo localhost",
        "python": f'exec "{sys.executable}" -c "$WRITE_ARGUMENTS" "$@"',
    }
    for name, line in stand_ins.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (programs / name).chmod(0o755)
    write = "import json, os, sys; open('task' + os.environ['SLURM_PROCID'], 'w').write(json.dumps(sys.argv[1:]))"
    environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "WRITE_ARGUMENTS": write}
    environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n", "SLURM_NTASKS": "2"}
    environment |= {"FAKE_SLURM_FOLDER": str(programs)}
    write_script(folder / "job.sbatch", text)
    subprocess.run(["bash", "-n", "job.sbatch"], cwd=folder, check=True)
    subprocess.run(["./job.sbatch"], cwd=folder, env=environment, check=True, timeout=60)
    tasks: list[list[str]] = [json.loads(path.read_text()) for path in sorted(folder.glob("task*"))]
    return tasks


def test_arguments_arrive_as_they_are_and_none_is_executed(tmp_path: Path) -> None:
    arguments = ["--", "my file.yaml", *PAYLOADS, *(f"data.folder={payload}" for payload in PAYLOADS)]
    python = str(tmp_path / "programs" / "python")
    tasks = run_script(tmp_path, build_script(replace(REQUEST, arguments=arguments, python=python)))
    assert tasks == [["-m", "llmtrain", "pretrain", *arguments]] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.sbatch", "programs", "task0", "task1"]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_as_the_interpreter_is_one_word(payload: str, tmp_path: Path) -> None:
    path = tmp_path / "job.sbatch"
    write_script(path, build_script(replace(REQUEST, python=f"/x/{payload}")))
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    words = f"printf '%s\\0' {build_script(replace(REQUEST, python=f'/x/{payload}')).split('--wait=120 ')[1]}"
    line = words.split(' -m llmtrain pretrain "$@"')[0]
    found = subprocess.run(["bash", "-c", line], capture_output=True, cwd=tmp_path, check=True).stdout
    assert found.decode() == f"/x/{payload}\0"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("option", ["partition", "account", "job_name"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_name_that_is_none_is_refused(option: str, payload: str) -> None:
    changes: dict[str, Any] = {option: payload}
    with pytest.raises(ConfigError, match=rf"command line: --{option.replace('_', '-')} = .* is not a name\. Allowed"):
        build_script(replace(REQUEST, **changes))


@pytest.mark.parametrize("time", ["", "1 day", "24:00:00\n", "24:00:00;x", "$(x)", "-1", "1:2:3"])
def test_a_time_that_is_none_is_refused(time: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a time\. Allowed are minutes"):
        build_script(replace(REQUEST, time=time))


def find_directives(text: str) -> list[str]:
    """What sbatch reads: lines above the first command."""
    lines = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            break
        lines += [line] if line.startswith("#SBATCH") else []
    return lines


def test_directives_hold_the_request_and_no_argument_can_add_one() -> None:
    request = replace(REQUEST, time="1-00:00:00", partition="gpu", account="lab.a", job_name="my-job")
    text = build_script(replace(request, arguments=["--", "a\n#SBATCH --uid=0\n"]))
    assert find_directives(text) == [
        "#SBATCH --job-name=my-job",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --time=1-00:00:00",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=lab.a",
        "#SBATCH --signal=USR1@90",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
    ]
    assert "--gpus-per-node" not in build_script(replace(REQUEST, gpus_per_node=0))


def test_secrets_of_the_shell_are_not_in_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MY_SECRET", "API_KEY"):
        monkeypatch.setenv(name, "canary-5713")
    assert "canary-5713" not in build_script(REQUEST)


@pytest.mark.parametrize("url", ["http://me:pass@host/", "https://:pass@host", "postgresql://u:p@db/x"])
def test_a_password_in_an_argument_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_script(replace(REQUEST, arguments=["--", "a.yaml", f"tracking.tracking_uri={url}"]))
    message = "command line: tracking.tracking_uri holds a password inside a URL, which the script would keep."
    assert str(caught.value).startswith(message)
    assert url not in str(caught.value)


def test_an_argument_no_program_can_be_given_is_refused() -> None:
    with pytest.raises(ConfigError, match="NUL character"):
        build_script(replace(REQUEST, arguments=["a\0b"]))


def test_a_script_is_its_owners_alone_also_when_one_is_replaced(tmp_path: Path) -> None:
    path, other = tmp_path / "job.sbatch", tmp_path / "other"
    other.write_text("kept")
    path.symlink_to(other)
    write_script(path, build_script(REQUEST))
    assert stat.S_IMODE(path.lstat().st_mode) == 0o700
    assert not path.is_symlink()
    assert other.read_text() == "kept"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["job.sbatch", "other"]
