"""A thread that ends this process when its main thread stays too long in one phase.

It takes part in no collective and needs nothing of the main thread but the last phase it named, so it also works when
the main thread sleeps in a C call. A call that never gives the interpreter's lock back stops this thread, too; for that
case a timer inside the interpreter prints the stacks to standard error and ends the process, with code 1.
"""

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmtrain.errors import EXIT_HANG
from llmtrain.process.hang_report import HangReport, Phase, is_in_collective, report_path, write_report

_POLL_SECONDS = 0.2
# After its report a rank waits for the others to write theirs: its end would be an error for those that wait for it.
_SETTLE_SECONDS = 2.0
# The folder of the run may be what hangs.
_WRITE_SECONDS = 10.0
_LOCKED_SECONDS = 15.0
_STDERR = 2


@dataclass(frozen=True)
class _Place:
    phase: Phase
    step: int
    since: float
    limit: float | None


class Watchdog:
    """Knows the phase of this rank and how long it may last."""

    def __init__(self, limits: Mapping[Phase, float | None], rank: int, run_folder: Path) -> None:
        """Make one that does not watch yet.

        Args:
            limits: seconds of each phase; None = no limit.
            rank: this rank; the first one also writes an event.
            run_folder: the report goes to its `logs`.
        """
        self._limits, self._rank, self._run_folder = dict(limits), rank, run_folder
        self._place: _Place | None = None
        self._is_watching = False
        self._is_closed = threading.Event()
        self._main_thread = threading.main_thread().ident

    def start(self) -> None:
        """Watch from now on; the first phase is `start`."""
        self._is_watching = True
        self.enter("start", 0)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def enter(self, phase: Phase, step: int | None = None) -> None:
        """Say what the main thread does from now on.

        Args:
            phase: what it does.
            step: at which optimizer step (of the run, the first is 1); None = the one named last.
        """
        if step is None:
            step = 0 if self._place is None else self._place.step
        limit = self._limits[phase]
        if phase == "step" and self._place is not None and self._place.phase == "start" and limit is not None:
            # The first step allocates, compiles and fills caches.
            start = self._limits["start"]
            limit = None if start is None else max(limit, start)
        self._place = _Place(phase, step, time.monotonic(), limit)
        if self._is_watching:
            faulthandler.cancel_dump_traceback_later()
            if limit is not None:
                faulthandler.dump_traceback_later(limit + _LOCKED_SECONDS, exit=True, file=_STDERR)

    def close(self) -> None:
        """Watch no longer."""
        self._is_closed.set()
        if self._is_watching:
            self._is_watching = False
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self._is_closed.wait(_POLL_SECONDS):
            place = self._place
            if place is None or place.limit is None:
                continue
            seconds = time.monotonic() - place.since
            if seconds > place.limit:
                self._end(place, seconds)

    def _end(self, place: _Place, seconds: float) -> None:
        frame = sys._current_frames().get(self._main_thread or 0)
        report = HangReport(
            self._rank, socket.gethostname(), place.phase, place.step, round(seconds, 1), is_in_collective(frame)
        )
        # Not through logging: the main thread may hold its lock.
        limit = f"watchdog.{place.phase}_seconds allows {place.limit:g}"
        stacks = report_path(self._run_folder / "logs", self._rank)
        os.write(_STDERR, f"{report.describe()}. {limit}. Stacks of its threads: {stacks}\n".encode())
        writing = threading.Thread(target=self._write, args=(report,), daemon=True)
        writing.start()
        writing.join(_WRITE_SECONDS)
        time.sleep(_SETTLE_SECONDS)
        os._exit(EXIT_HANG)

    def _write(self, report: HangReport) -> None:
        write_report(self._run_folder / "logs", report)
        if self._rank == 0:
            event = {"time": time.time(), "event": "hang", "phase": report.phase, "seconds": report.seconds}
            event |= {"step": report.step, "waits_for_others": report.waits_for_others}
            with (self._run_folder / "events.jsonl").open("ab", buffering=0) as file:
                file.write((json.dumps(event) + "\n").encode())
