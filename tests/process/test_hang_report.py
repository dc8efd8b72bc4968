import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmtrain.process.hang_report import (
    HangReport,
    find_hung_ranks,
    is_in_collective,
    read_reports,
    report_path,
    write_report,
)


def make_report(rank: int, place: str, waits: bool, seconds: float = 9.0) -> HangReport:
    phase, step = place.split()
    return HangReport(rank, "node0", phase, int(step), seconds, waits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reports", "silent", "blamed"),
    [
        ([(0, "step 5", True), (1, "step 5", False)], [], [1]),
        ([(0, "step 5", True), (1, "step 5", True)], [], []),
        ([(0, "step 5", True)], [1], [1]),
        ([(0, "step 5", True), (1, "step 4", True)], [], [1]),
        ([(0, "save 5", True), (1, "step 5", True)], [], [1]),
        ([(0, "step 5", False), (1, "step 4", False), (2, "step 5", True)], [], [1]),
        ([(0, "step 5", False), (1, "step 5", False)], [], [0, 1]),
        ([], [], []),
    ],
)
def test_the_rank_the_others_waited_for_is_blamed(
    reports: list[tuple[int, str, bool]], silent: list[int], blamed: list[int]
) -> None:
    assert find_hung_ranks([make_report(*report) for report in reports], silent) == blamed


def test_a_report_says_where_the_rank_stood_and_holds_the_stacks_of_its_threads(tmp_path: Path) -> None:
    report = make_report(3, "evaluate 12", False)
    path = write_report(tmp_path / "logs", report)
    assert path == report_path(tmp_path / "logs", 3) == tmp_path / "logs" / "hang-rank00003.txt"
    assert "test_hang_report.py" in path.read_text().partition("\n")[2]
    assert read_reports(tmp_path / "logs", time.time() - 60) == [report]
    assert report.describe() == (
        "rank 3 on node0: hang: 9 s in phase 'evaluate' at step 12, not waiting for other ranks"
    )


def test_reports_of_an_earlier_attempt_and_torn_ones_are_left_out(tmp_path: Path) -> None:
    now = time.time()
    for rank in range(3):
        write_report(tmp_path, make_report(rank, "step 1", True))
    os.utime(report_path(tmp_path, 0), (now - 100, now - 100))
    report_path(tmp_path, 1).write_text('{"rank": 1, "ho')
    assert [report.rank for report in read_reports(tmp_path, now - 50)] == [2]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/x/torch/distributed/c10d.py", True), ("/x/deepspeed/comm/comm.py", True), ("/x/llmtrain/engine.py", False)],
)
def test_a_frame_belongs_to_a_collective_by_the_file_of_its_innermost_calls(path: str, expected: bool) -> None:
    scope: dict[str, Any] = {}
    exec(compile("def call(function): return function()", path, "exec"), scope)
    assert scope["call"](lambda: is_in_collective(sys._getframe())) is expected


def test_no_frame_is_no_collective() -> None:
    assert not is_in_collective(None)
