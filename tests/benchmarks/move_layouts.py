"""One run on three layouts: stopped with SIGTERM, continued on the next, beside the same run on one process.

    python tests/benchmarks/move_layouts.py --data data/quickstart --output docs/results/layout_change

Needs prepared data (`llmtrain data prepare configs/quickstart.yaml`). Writes layout_change.json (losses of both, where
the layout changed, the largest relative difference) and layout_change.png.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS = 90
LAYOUTS = [
    (4, "data 1 x tensor 2 x pipeline 2, ZeRO-1", ["tensor_parallel_size=2", "pipeline_parallel_size=2"]),
    (2, "data 2, ZeRO-3", ["zero_stage=3"]),
    (4, "data 2 x tensor 2, ZeRO-2", ["tensor_parallel_size=2", "zero_stage=2"]),
]
OVERRIDES = [
    f"training.train_steps={STEPS}",
    "training.log_every_steps=1",
    # That of a large model: at the quickstart's 3e-3 rounding grows tenfold every 25 steps, between any two layouts.
    "optimizer.learning_rate=3e-4",
    "schedule.min_learning_rate=3e-5",
    "batch.micro_batch_size=4",
    "evaluation.evaluate_every_steps=null",
    "evaluation.sequences_per_source=4",
    "sampling.sample_every_steps=null",
    "sampling.max_new_tokens=1",
    "checkpoint.save_every_steps=null",
    "tracking.mlflow=false",
    "tracking.peak_flops=1e12",
]


def build_command(name: str, root: Path, data: Path, ranks: int, parallel: list[str]) -> list[str]:
    command = [sys.executable, "-m", "llmtrain", "pretrain", "configs/quickstart.yaml", "--nproc", str(ranks)]
    places = [f"run.name={name}", f"run.root={root}", f"data.folder={data}", "data.verify=size"]
    return [*command, *places, *OVERRIDES, *(f"parallel.{override}" for override in parallel)]


def read_losses(run_folder: Path) -> dict[int, float]:
    path = run_folder / "metrics.jsonl"
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return {line["step"]: line["metrics"]["train/loss"] for line in lines if "train/loss" in line["metrics"]}


def train_until(command: list[str], run_folder: Path, step: int) -> int:
    """Train; stop with SIGTERM when `step` is reached. Gives the exit code."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if step < STEPS and max(read_losses(run_folder), default=0) >= step:
            process.send_signal(signal.SIGTERM)
            return process.wait()
        time.sleep(0.1)
    return process.returncode


def move(root: Path, data: Path) -> dict[str, Any]:
    changes = []
    for i, (ranks, name, parallel) in enumerate(LAYOUTS):
        target = STEPS * (i + 1) // len(LAYOUTS)
        first = max(read_losses(root / "moved"), default=0)
        code = train_until(build_command("moved", root, data, ranks, parallel), root / "moved", target)
        last = max(read_losses(root / "moved"))
        changes.append({"layout": name, "ranks": ranks, "steps": [first + 1, last], "exit_code": code})
    reference = build_command("reference", root, data, 1, ["zero_stage=0"])
    subprocess.run(reference, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    moved, expected = read_losses(root / "moved"), read_losses(root / "reference")
    differences = {step: abs(moved[step] - loss) / loss for step, loss in expected.items()}
    return {
        "layouts": changes,
        "largest_relative_difference": max(differences.values()),
        "moved": list(moved.values()),
        "one_process": list(expected.values()),
    }


def plot(result: dict[str, Any], output: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    steps = range(1, STEPS + 1)
    upper.plot(steps, result["one_process"], color="#bbbbbb", linewidth=4, label="one process, uninterrupted")
    for colour, layout in zip(("#0072B2", "#D55E00", "#009E73"), result["layouts"], strict=True):
        first, last = layout["steps"]
        own = range(first, last + 1)
        upper.plot(own, result["moved"][first - 1 : last], color=colour, linewidth=1.5, label=layout["layout"])
        differences = [max(1e-10, abs(result["moved"][step - 1] / result["one_process"][step - 1] - 1)) for step in own]
        lower.semilogy(own, differences, ".", color=colour, markersize=4)
    upper.set(ylabel="training loss (nats per token)", title="one run, stopped and continued on three layouts")
    upper.legend(frameon=False)
    lower.set(xlabel="optimizer step", ylabel="relative\ndifference", ylim=(1e-10, 1e-3))
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(output, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/quickstart"))
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = move(Path(folder), arguments.data)
    print(json.dumps({key: value for key, value in result.items() if not key.startswith(("moved", "one"))}, indent=1))
    arguments.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
