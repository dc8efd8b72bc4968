"""What the machine does during a run: `system/*`, sampled by the mirror's process into system.jsonl."""

import json
import time
from pathlib import Path

import psutil

_NAME = "system.jsonl"


class SystemSampler:
    """Appends a line every so many seconds."""

    def __init__(self, run_folder: Path, interval_seconds: float) -> None:
        self._path, self._interval = run_folder / _NAME, interval_seconds
        lines = self._path.read_text(encoding="utf-8").count("\n") if self._path.exists() else 0
        self._next_time, self._step = 0.0, lines
        psutil.cpu_percent()  # the first call only starts the measurement

    def sample_if_due(self) -> None:
        """Take a sample unless the last one is too recent."""
        if time.monotonic() < self._next_time:
            return
        self._next_time = time.monotonic() + self._interval
        line = {"step": self._step, "time": time.time(), "metrics": measure_system()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._step += 1


def measure_system() -> dict[str, float]:
    """Load, memory, disk and network of this machine now."""
    memory, network = psutil.virtual_memory(), psutil.net_io_counters()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/memory_used_gib": (memory.total - memory.available) / 2**30,
        "system/memory_utilization_percentage": memory.percent,
        "system/disk_free_gib": psutil.disk_usage(".").free / 2**30,
        "system/network_sent_gib": network.bytes_sent / 2**30,
        "system/network_received_gib": network.bytes_recv / 2**30,
    }
