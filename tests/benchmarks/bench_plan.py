"""Does `llmtrain plan`, fitted to runs of some models on this machine, foretell the step of another one?

    python -m tests.benchmarks.bench_plan --data data/quickstart --output docs/results/plan_calibration_cpu.json

On two CPU ranks of one thread: the machine is described by `llmtrain cluster measure`, models of several sizes are
trained for about half a minute each, in turn, several rounds, and `llmtrain plan --calibrate` fits the shares of the
description to them. Of each size the run with the least median step counts: other programs only ever add time. A run's
`left_out_error` is that of its prediction by shares fitted to all the others. `load` is the machine's when a run began.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from llmtrain.stages.measured_run import read_measured_run
from llmtrain.tracking.summary import find_commit, find_versions
from tests.helpers.benchmarks import describe_machine

WORLD_SIZE, INTERVALS = 2, 10
# Steps for about half a minute, layers, hidden size, feed-forward size, query heads, key heads, sequence, micro-batch.
SIZES = {
    "small": (120, 4, 128, 352, 4, 2, 256, 8),
    "deep": (40, 12, 128, 352, 4, 2, 256, 8),
    "medium": (30, 6, 256, 704, 4, 2, 256, 8),
    "wide": (20, 4, 512, 1408, 8, 4, 256, 8),
    "long": (40, 4, 256, 704, 8, 4, 1024, 2),
    "accumulated": (60, 2, 256, 704, 4, 2, 256, 2),
}


def run_llmtrain(*arguments: str) -> str:
    """Standard output of the command line."""
    command = [sys.executable, "-m", "llmtrain", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(f"{arguments} failed:\n{process.stderr[-3000:]}")
    return process.stdout


def train(name: str, folder: Path, data: Path) -> Path:
    """Train one size; its run folder."""
    steps, layers, hidden, inner, heads, key_heads, length, micro_batch = SIZES[name]
    run_llmtrain(
        "pretrain", "configs/quickstart.yaml", "--nproc", str(WORLD_SIZE),
        f"run.root={folder}", f"run.name={name}", f"data.folder={data}",
        f"training.train_steps={steps}", f"training.log_every_steps={steps // INTERVALS}", "schedule.warmup_steps=4",
        f"model.num_layers={layers}", f"model.hidden_size={hidden}", f"model.intermediate_size={inner}",
        f"model.num_attention_heads={heads}", f"model.num_key_value_heads={key_heads}",
        f"batch.sequence_length={length}", f"batch.micro_batch_size={micro_batch}", "batch.global_batch_size=16",
        "tracking.mlflow=false", "evaluation.evaluate_every_steps=null", "evaluation.sequences_per_source=8",
        "sampling.sample_every_steps=null", "sampling.prompts=[]", "checkpoint.save_every_steps=null",
    )  # fmt: skip
    return folder / name


def measure(folder: Path, data: Path, rounds: int) -> dict[str, Any]:
    """Describe the machine, train every size, fit."""
    machine = folder / "machine.yaml"
    chosen: dict[str, Path] = {}
    loads: dict[str, float] = {}
    run_llmtrain("cluster", "measure", "--nproc", str(WORLD_SIZE), "--output", str(machine), "--folder", str(folder))
    for number in range(rounds):
        for name in SIZES:
            load = os.getloadavg()[0]
            run = train(name, folder / f"round-{number}", data)
            seconds = read_measured_run(run).step_seconds
            print(f"round {number}: {name} {seconds:.3f} s, load {load:.1f}", file=sys.stderr)
            if name not in chosen or seconds < read_measured_run(chosen[name]).step_seconds:
                chosen[name], loads[name] = run, load
    arguments = [part for run in chosen.values() for part in ("--calibrate", str(run))]
    found = json.loads(run_llmtrain("plan", *arguments, "--cluster", str(machine), "--json"))
    for row in found["runs"]:
        row["run"] = Path(row["run"]).name
        row["load"] = loads[row["run"]]
    return {"rounds": rounds, **found, "machine_yaml": machine.read_text().splitlines()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/quickstart"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments.data, arguments.rounds)
    result |= {"machine": describe_machine() | {"cores_used": 2}, "versions": find_versions(), "commit": find_commit()}
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
