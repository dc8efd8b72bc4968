"""What a run writes about itself: lines appended to files of the run folder.

    metrics.jsonl   {"step": 10, "time": 1790000000.0, "metrics": {"train/loss": 3.2}}
    samples.jsonl   {"step": 100, "time": ..., "prompt": "The ", "text": "..."}
    events.jsonl    {"time": ..., "event": "started", ...}
    summary.json    at the end

A line is handed to the operating system at once, so a killed process loses none; the loop never waits for a disk.
A line that cannot be written stops the run: on a full disk the next checkpoint would fail as well.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from llmtrain.errors import MachineError

METRICS_NAME, SAMPLES_NAME, EVENTS_NAME = "metrics.jsonl", "samples.jsonl", "events.jsonl"
SUMMARY_NAME, SUMMARY_MARKDOWN = "summary.json", "summary.md"


class RunWriter:
    """Appends to the files of one run folder; rank 0 has one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files: dict[str, FileIO] = {}

    def resume(self, step: int) -> None:
        """Forget metrics and samples after `step`: they will come again. A line torn by a kill is dropped."""
        for name in (METRICS_NAME, SAMPLES_NAME, EVENTS_NAME):
            kept = [line for line in read_lines(self._folder / name) if "event" in line or line["step"] <= step]
            write_lines(self._folder / name, kept)

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append numbers of one step; all are finite.

        Raises:
            MachineError: the disk is full or the folder cannot be written; so do all methods that write.
        """
        self._append(METRICS_NAME, {"step": step, "time": time.time(), "metrics": dict(metrics)})

    def log_sample(self, step: int, prompt: str, text: str, **fields: float) -> None:
        """Append generated text, and what it was found to be worth."""
        self._append(SAMPLES_NAME, {"step": step, "time": time.time(), "prompt": prompt, "text": text, **fields})

    def log_event(self, event: str, **fields: Any) -> None:
        """Append something that happened once: start, resume, save, stop, failure."""
        self._append(EVENTS_NAME, {"time": time.time(), "event": event, **fields})

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the summary; it appears whole or not at all."""
        write_whole(self._folder / SUMMARY_NAME, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")

    @property
    def has_summary(self) -> bool:
        """Whether a summary was written, now or by an attempt before."""
        return bool(read_summary(self._folder))

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        text = memoryview((json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode())
        with explain_refusal(self._folder / name):
            if name not in self._files:
                # Without a buffer: it would keep a line that was refused, and fail again when the file is closed.
                self._files[name] = (self._folder / name).open("ab", buffering=0)
            while text:
                text = text[self._files[name].write(text) :]


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a finished run or stage; empty when there is none, or none that can be read."""
    try:
        return dict(json.loads((folder / SUMMARY_NAME).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a file; a torn last line, and everything after a broken one, is left out."""
    if not path.is_file():
        return []
    lines = []
    # Not str.splitlines: it also splits at U+2028 and U+0085, which stand as they are inside generated text.
    for text in path.read_bytes().split(b"\n"):
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file of lines."""
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_metrics(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every metric of a run as (step, value), in the order written."""
    series: dict[str, list[tuple[int, float]]] = {}
    for line in read_lines(folder / METRICS_NAME):
        for name, value in line["metrics"].items():
            series.setdefault(name, []).append((line["step"], value))
    return series


def write_whole(path: Path, text: str) -> None:
    """Replace a file; it never holds half of the text."""
    temporary = path.with_name(path.name + ".tmp")
    with explain_refusal(path), temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def explain_refusal(path: Path) -> Iterator[None]:
    """Say what to do when the operating system refuses to write.

    Raises:
        MachineError: in place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"{path}: cannot be written: {error.strerror}. Free some space or make the folder writable, then start "
            "again: the run resumes from its last checkpoint."
        ) from error
