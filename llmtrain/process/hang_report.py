"""What a rank writes when it hangs, and which rank is to blame once several have written.

RUN/logs/hang-rank00001.txt     line 1: JSON, where the rank stood; then the stacks of all its threads
"""

import contextlib
import faulthandler
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Literal, get_args

Phase = Literal["start", "step", "evaluate", "sample", "save", "end"]
PHASES: tuple[Phase, ...] = get_args(Phase)
_COLLECTIVES = ("/torch/distributed/", "/deepspeed/")
_INNER_FRAMES = 3


@dataclass(frozen=True)
class HangReport:
    """Where a rank stood when its time was over. `waits_for_others` is whether its main thread was in a collective."""

    rank: int
    host: str
    phase: Phase
    step: int
    seconds: float
    waits_for_others: bool

    def describe(self) -> str:
        """One line for people."""
        doing = "waiting for other ranks" if self.waits_for_others else "not waiting for other ranks"
        return (
            f"rank {self.rank} on {self.host}: hang: {self.seconds:.0f} s in phase '{self.phase}' at step {self.step}, "
            f"{doing}"
        )


def report_path(log_folder: Path, rank: int) -> Path:
    """The file of a rank."""
    return log_folder / f"hang-rank{rank:05d}.txt"


def write_report(log_folder: Path, report: HangReport) -> Path:
    """Write where the rank stands and the stacks of all its threads."""
    log_folder.mkdir(parents=True, exist_ok=True)
    path = report_path(log_folder, report.rank)
    with path.open("w") as file:
        file.write(json.dumps(asdict(report)) + "\n")
        file.flush()
        faulthandler.dump_traceback(file, all_threads=True)
    return path


def read_reports(log_folder: Path, since: float) -> list[HangReport]:
    """Reports written after a time (seconds since the epoch), in rank order; one that is half written is left out."""
    reports = []
    for path in sorted(log_folder.glob("hang-rank*.txt")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            if path.stat().st_mtime >= since:
                reports.append(HangReport(**json.loads(path.read_text().partition("\n")[0])))
    return reports


def find_hung_ranks(reports: Sequence[HangReport], silent: Collection[int]) -> list[int]:
    """The ranks that the others waited for; all or none of them when the reports do not tell.

    Args:
        reports: what ranks wrote.
        silent: ranks that still exist and wrote nothing: stopped, or stuck with the interpreter's lock.
    """
    if silent:
        return sorted(silent)
    busy = [report for report in reports if not report.waits_for_others]
    candidates = busy or reports
    places = [(report.step, PHASES.index(report.phase)) for report in candidates]
    if not busy and len(set(places)) == 1:
        return []
    return [report.rank for report, place in zip(candidates, places, strict=True) if place == min(places)]


def is_in_collective(frame: FrameType | None) -> bool:
    """Whether a thread's innermost Python frames belong to a collective."""
    for _ in range(_INNER_FRAMES):
        if frame is None:
            return False
        if any(part in frame.f_code.co_filename for part in _COLLECTIVES):
            return True
        frame = frame.f_back
    return False
