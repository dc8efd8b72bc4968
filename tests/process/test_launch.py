import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from llmtrain.process.launch import judge, run_ranks_here


@pytest.mark.parametrize(
    ("codes", "verdict"),
    [
        ([0, 0], (0, 0)),
        ([75, 75], (0, 75)),
        ([1, 4], (1, 4)),
        ([1, -9], (1, 137)),
        ([1, 1], (0, 1)),
        ([0, 5], (1, 5)),
    ],
)
def test_the_rank_that_knows_the_cause_is_blamed(codes: list[int], verdict: tuple[int, int]) -> None:
    assert judge(codes) == verdict


@pytest.fixture
def fake_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `llmtrain` in front of the real one whose ranks run `script.py` of the test."""
    package = tmp_path / "llmtrain"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("import runpy, sys; runpy.run_path(sys.argv[1])")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_script(folder: Path, body: str) -> str:
    path = folder / "script.py"
    path.write_text("import os, sys, time, signal\nrank = int(os.environ['RANK'])\n" + textwrap.dedent(body))
    return str(path)


def test_ranks_get_their_variables_and_success_is_zero(fake_ranks: Path) -> None:
    script = write_script(fake_ranks, "open(f'seen{rank}', 'w').write(os.environ['WORLD_SIZE'])")
    assert run_ranks_here([script], 3, fake_ranks / "logs") == 0
    assert [(fake_ranks / f"seen{rank}").read_text() for rank in range(3)] == ["3", "3", "3"]


def test_a_failing_rank_ends_the_run_with_its_code_and_its_log(
    fake_ranks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = write_script(fake_ranks, "if rank == 1: print('bad shard'); sys.exit(4)")
    with caplog.at_level(logging.ERROR):
        assert run_ranks_here([script], 2, fake_ranks / "logs") == 4
    assert "rank 1 of 2 ended with code 4" in caplog.text
    assert "bad shard" in caplog.text


def test_a_killed_rank_takes_the_others_down(fake_ranks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmtrain.process.launch._GRACE_SECONDS", 0.2)
    script = write_script(fake_ranks, "if rank == 1: os.kill(os.getpid(), 9)\ntime.sleep(60)")
    started = time.monotonic()
    assert run_ranks_here([script], 2, fake_ranks / "logs") == 137
    assert time.monotonic() - started < 30


def start_launcher(fake_ranks: Path, script: str) -> "subprocess.Popen[bytes]":
    """A launcher of two ranks as a process of its own, once both ranks are ready."""
    launcher = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
            "from llmtrain.process.launch import run_ranks_here;"
            "sys.exit(run_ranks_here([sys.argv[2]], 2, Path('logs')))",
            str(Path(__file__).parents[2]),
            script,
        ],
        env={**os.environ},
        cwd=fake_ranks,
        start_new_session=True,
    )
    while not all((fake_ranks / f"ready{rank}").exists() for rank in range(2)):
        time.sleep(0.05)
        assert launcher.poll() is None
    return launcher


def test_a_stop_signal_reaches_every_rank(fake_ranks: Path) -> None:
    script = write_script(
        fake_ranks,
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        open(f'ready{rank}', 'w')
        time.sleep(60)
        """,
    )
    launcher = start_launcher(fake_ranks, script)
    launcher.send_signal(signal.SIGUSR1)
    assert launcher.wait(timeout=30) == 75


REPORT = """
import json
path = f'logs/hang-rank{rank:05d}.txt'
report = dict(rank=rank, host='n', phase='step', step=4, seconds=9.0, waits_for_others=True)
"""


def test_a_rank_that_wrote_nothing_and_does_not_end_is_the_one_that_hung(
    fake_ranks: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmtrain.process.launch._GRACE_SECONDS", 0.2)
    body = f"{REPORT}if rank == 1: time.sleep(60)\nopen(path, 'w').write(json.dumps(report))\nsys.exit(124)"
    with caplog.at_level(logging.ERROR):
        assert run_ranks_here([write_script(fake_ranks, body)], 2, fake_ranks / "logs") == 124
    assert "the run hung (1 of 2 ranks said where they stood)\nrank 1 (process " in caplog.text
    assert ") does not answer" in caplog.text


def test_ranks_that_all_waited_are_not_blamed(fake_ranks: Path, caplog: pytest.LogCaptureFixture) -> None:
    body = f"{REPORT}open(path, 'w').write(json.dumps(report))\nsys.exit(124)"
    with caplog.at_level(logging.ERROR):
        assert run_ranks_here([write_script(fake_ranks, body)], 2, fake_ranks / "logs") == 124
    assert "the run hung (2 of 2 ranks said where they stood)\nall of them waited for one another" in caplog.text


def test_ctrl_c_on_a_terminal_reaches_each_rank_once(fake_ranks: Path) -> None:
    body = """
        heard = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: heard.append(number))
        open(f'ready{rank}', 'w').close()
        while not heard:
            time.sleep(0.05)
        time.sleep(1)
        sys.exit(75 if heard == [signal.SIGTERM] else 1)
    """
    script = write_script(fake_ranks, body)
    launcher = start_launcher(fake_ranks, script)
    os.killpg(launcher.pid, signal.SIGINT)
    assert launcher.wait(60) == 75


def test_what_torchrun_said_to_this_process_is_not_passed_on(fake_ranks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    script = write_script(fake_ranks, "sys.exit('TORCHELASTIC_USE_AGENT_STORE' in os.environ)")
    assert run_ranks_here([script], 1, fake_ranks / "logs") == 0
