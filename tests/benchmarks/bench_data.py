"""All of the data side in one command: extraction, cleaning, deduplication, tokenizing, and how extraction scales.

    python -m tests.benchmarks.bench_data --peers-python PEERS/bin/python --megatron FOLDER --output docs/results

runs bench_extract, bench_cleaning, bench_deduplicate and bench_tokenize one after the other (see each for what is
compared, and how to get the peers), then times the extraction of Python source with one worker and with two, in turn,
start of the workers included. Each result goes to a file of its own in the output folder; ratios are printed.

Needs prepared data (`llmtrain data prepare configs/quickstart.yaml`).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from data_pipelines.prepare import extract_share
from llmtrain.config.loader import validate

# Some 50 MB of source that every installation has.
PATHS = ["stdlib:", "package:torch", "package:transformers"]
STEPS = ["bounds", "code_quality", "mask_personal_data"]


def measure_scaling(rounds: int) -> dict[str, Any]:
    """Seconds of extraction with one and with two workers."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers, row in seconds.items():
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                extract_share(build_config(Path(folder), workers), 0, 1, Console(file=StringIO()))
                row.append(time.perf_counter() - started)
    ratios = [one / two for one, two in zip(*seconds.values(), strict=True)]
    return {"seconds_by_workers": seconds, "speedup": statistics.median(ratios), "speedups": ratios}


def build_config(folder: Path, workers: int) -> Any:
    """A configuration whose data part alone matters."""
    source = {"kind": "code", "paths": PATHS}
    values = {
        "run": {"name": "bench", "seed": 1},
        "corpus": {
            "sources": {"python": source},
            "steps": {"code": [{"name": name} for name in STEPS]},
            "workers": workers,
        },
        "data": {"folder": str(folder)},
        "batch": {"sequence_length": 16, "micro_batch_size": 1, "global_batch_size": 1},
        "model": {"family": "gpt2", "num_layers": 1, "hidden_size": 32, "num_attention_heads": 2},
        "optimizer": {"learning_rate": 1e-3},
        "schedule": {"name": "constant"},
        "training": {"train_steps": 1},
    }
    return validate(values, {(): "bench"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--peers-python", type=Path, help="Python of the environment that holds the peers")
    parser.add_argument("--megatron", type=Path, help="a checkout of Megatron-LM")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=["extract", "cleaning", "deduplicate", "tokenize", "scaling"])
    arguments = parser.parse_args()
    peers = ["--peers-python", str(arguments.peers_python)] if arguments.peers_python else []
    more = {"tokenize": ["--megatron", str(arguments.megatron)] if arguments.megatron else []}
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        path = arguments.output / f"{name}_cpu.json"
        if name == "scaling":
            result = measure_scaling(arguments.rounds)
            path.write_text(json.dumps(result, indent=1) + "\n")
            sys.stdout.write(f"extraction, two workers over one: {result['speedup']:.2f}\n")
            continue
        script = [sys.executable, "-m", f"tests.benchmarks.bench_{name}", "--rounds", str(arguments.rounds)]
        subprocess.run([*script, "--output", str(path), *peers, *more.get(name, [])], check=True)


if __name__ == "__main__":
    main()
