"""What the machine does during a run: `system/*`, sampled by the mirror's process into system.jsonl."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import psutil

from llmtrain.tracking.run_folder import read_lines, write_lines

SYSTEM_NAME = "system.jsonl"
_GPU_FIELDS = {
    "utilization.gpu": "utilization_percentage",
    "memory.used": "memory_used_mib",
    "power.draw": "power_watts",
    "temperature.gpu": "temperature_celsius",
}


class SystemSampler:
    """Appends a line every so many seconds."""

    def __init__(self, run_folder: Path, interval_seconds: float) -> None:
        self._path, self._interval = run_folder / SYSTEM_NAME, interval_seconds
        lines = read_lines(self._path)
        write_lines(self._path, lines)  # a line torn by a kill would hide every later one
        self._next_time, self._step = 0.0, len(lines)
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
    """Load, memory, disk, network and GPUs of this machine now."""
    memory, network = psutil.virtual_memory(), psutil.net_io_counters()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/memory_used_gib": (memory.total - memory.available) / 2**30,
        "system/memory_utilization_percentage": memory.percent,
        "system/disk_free_gib": psutil.disk_usage(".").free / 2**30,
        "system/network_sent_gib": network.bytes_sent / 2**30,
        "system/network_received_gib": network.bytes_recv / 2**30,
    } | _measure_gpus()


def _measure_gpus() -> dict[str, float]:
    """Each NVIDIA GPU as its own driver tool tells it; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse_gpus(output)


def parse_gpus(output: str) -> dict[str, float]:
    """One line of `nvidia-smi` for each GPU -> metrics; `[N/A]` and the like are left out."""
    metrics = {}
    for index, line in enumerate(output.strip().splitlines()):
        for name, value in zip(_GPU_FIELDS.values(), line.split(","), strict=False):
            try:
                metrics[f"system/gpu_{index}_{name}"] = float(value)
            except ValueError:
                continue
    return metrics
