"""Each case is a process of its own that hangs; the watchdog ends it."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from llmtrain.process.hang_report import read_reports, report_path

HEAD = """
import ctypes, sys, threading, time
from pathlib import Path
from llmtrain.process import watchdog as module
from llmtrain.process.watchdog import Watchdog
module._SETTLE_SECONDS = 0.2
folder = Path(sys.argv[1])
limits = dict(start=5.0, step=0.5, evaluate=60.0, sample=60.0, save=None, end=60.0)
watchdog = Watchdog(limits, int(sys.argv[2]), folder)
"""


def run_script(folder: Path, body: str, rank: int = 0) -> "subprocess.CompletedProcess[str]":
    code = HEAD + textwrap.dedent(body)
    command = [sys.executable, "-c", code, str(folder), str(rank)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


HANGS = {
    "sleep": "time.sleep(60)",
    "a call into C that gives the lock back": "ctypes.CDLL(None).sleep(60)",
    "a lock of the logging module": "import logging; logging._lock.acquire(); threading.Lock().acquire(); "
    "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "a busy loop": "while True: pass",
}


@pytest.mark.parametrize("hang", sorted(HANGS))
def test_a_hang_ends_with_124_and_says_which_rank_stood_where(hang: str, tmp_path: Path) -> None:
    started = time.time()
    body = f"watchdog.start()\nwatchdog.enter('evaluate', 6)\nwatchdog.enter('step', 7)\n{HANGS[hang]}"
    result = run_script(tmp_path, body, rank=3)
    assert result.returncode == 124, result.stderr
    (report,) = read_reports(tmp_path / "logs", started - 1)
    assert (report.rank, report.phase, report.step, report.waits_for_others) == (3, "step", 7, False)
    assert report.seconds >= 0.5
    assert f"{report.describe()}. watchdog.step_seconds allows 0.5." in result.stderr
    assert str(report_path(tmp_path / "logs", 3)) in result.stderr
    assert "most recent call first" in report_path(tmp_path / "logs", 3).read_text()
    assert not (tmp_path / "events.jsonl").exists()


def test_the_first_rank_writes_an_event(tmp_path: Path) -> None:
    result = run_script(
        tmp_path, "watchdog.start(); watchdog.enter('evaluate', 1); watchdog.enter('step', 2); time.sleep(60)"
    )
    assert result.returncode == 124
    event = json.loads((tmp_path / "events.jsonl").read_text())
    assert (event["event"], event["phase"], event["step"]) == ("hang", "step", 2)


def test_a_call_that_keeps_the_interpreter_ends_too_and_shows_its_stack(tmp_path: Path) -> None:
    body = """
    module._LOCKED_SECONDS = 0.3
    watchdog.start(); watchdog.enter('evaluate', 1); watchdog.enter('step', 2)
    ctypes.PyDLL(None).sleep(40)
    """
    result = run_script(tmp_path, body)
    assert result.returncode == 1
    assert "Timeout (0:00:00.8" in result.stderr
    assert "most recent call first" in result.stderr


def test_phases_within_their_limits_and_without_limit_go_on(tmp_path: Path) -> None:
    body = """
    watchdog.start()
    watchdog.enter('step', 1); time.sleep(1.2)  # the first step may take as long as the start
    for step in range(2, 6): watchdog.enter('step', step); time.sleep(0.25)
    watchdog.enter('save', 6); time.sleep(1.2)
    watchdog.enter('step', 7); watchdog.close(); time.sleep(1.2)
    print('end')
    """
    result = run_script(tmp_path, body)
    assert (result.returncode, result.stdout, result.stderr) == (0, "end\n", "")
    assert not (tmp_path / "logs").exists()


def test_a_folder_that_does_not_answer_does_not_keep_the_process(tmp_path: Path) -> None:
    body = """
    module._WRITE_SECONDS = 0.2
    module.write_report = lambda *_: time.sleep(60)
    watchdog.start(); watchdog.enter('evaluate', 1); watchdog.enter('step', 2)
    time.sleep(60)
    """
    result = run_script(tmp_path, body)
    assert result.returncode == 124
    assert "rank 0 on" in result.stderr
