"""Speed of deduplication: MinHash signatures beside datatrove's, and the stage that finds repeats over all documents.

    python -m tests.benchmarks.bench_deduplicate --peers-python PEERS/bin/python --output RESULT.json

Signatures: documents of web pages and of Wikipedia of prepared data (`llmtrain data prepare configs/quickstart.yaml`),
one of `--every`, held in memory; 5-grams of words, 14 bands of 8 rows on both sides; the files are written, too, and
sorted. Rates are megabytes of UTF-8 text per second of processor time; each side runs in a process of its own, in turn,
several rounds. A ratio is taken in each round, the median counts. Words differ: datatrove's are tokens of spaCy, ours
are runs of letters and digits.

Repeats: random columns of `--documents` documents, a tenth of which repeats an earlier one, in one band and the ids:
what a corpus of so many documents costs for each band. A process of its own tells its largest resident size, in which
pages of mapped files count.

The peer lives in an environment of its own: pip install 'datatrove[processing]' spacy
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Only the standard library above: datatrove's part runs in the peer's environment.

WARM_UP = 20
RUN_DOCUMENTS = 1 << 18


def sign_with_llmtrain(texts: list[str], folder: Path) -> None:
    from data_pipelines.deduplication.columns import write_columns
    from data_pipelines.document import Document, identify
    from llmtrain.config.deduplicate import DeduplicateConfig, NearDuplicates

    config = DeduplicateConfig(near=NearDuplicates())
    for _ in write_columns((Document(text, "", "", id=identify(text)) for text in texts), folder / "unit", config):
        pass


def sign_with_datatrove(texts: list[str], folder: Path) -> None:
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    step = MinhashDedupSignature(str(folder), MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8))
    step.run(Document(text=text, id=str(number)) for number, text in enumerate(texts))


SIDES = {"llmtrain": sign_with_llmtrain, "datatrove": sign_with_datatrove}


def run_side(side: str, path: Path) -> dict[str, float]:
    texts: list[str] = json.loads(path.read_text())
    with tempfile.TemporaryDirectory() as folder:
        SIDES[side](texts[:WARM_UP], Path(folder) / "warm")
        started = time.process_time()
        SIDES[side](texts, Path(folder) / "out")
        return {"processor_seconds": time.process_time() - started}


def find_repeats(documents: int) -> dict[str, Any]:
    """Columns of random hashes are written, then repeats are looked for."""
    import numpy as np

    from data_pipelines.deduplication.columns import Run
    from data_pipelines.deduplication.decide import decide
    from llmtrain.config.deduplicate import DeduplicateConfig, NearDuplicates

    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, start in enumerate(range(0, documents, RUN_DOCUMENTS)):
            size = min(RUN_DOCUMENTS, documents - start)
            own = np.arange(start, start + size, dtype=np.uint64)
            repeats = random.random(size) < 0.1
            own[repeats] = random.integers(0, start + size, int(repeats.sum()), dtype=np.uint64)
            hashes = (own + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            order = np.argsort(hashes)
            rows = {"ids": np.stack([hashes[order]] * 2), "bands": hashes[order][None]}
            np.save(folder / f"unit.{number:05d}.documents.npy", np.array([size, 0]))
            for kind, keys in rows.items():
                np.save(folder / f"unit.{number:05d}.{kind}.npy", keys)
                np.save(folder / f"unit.{number:05d}.{kind}.order.npy", order.astype(np.uint32)[None])
        config = DeduplicateConfig(near=NearDuplicates(bands=1))
        runs = [Run(folder / "unit", number) for number in range(-(-documents // RUN_DOCUMENTS))]
        started, cpu = time.perf_counter(), time.process_time()
        verdict = decide({"source": runs}, config, folder / "work", threads=1)["source"]
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        return {
            "documents": documents,
            "columns": 2,
            "dropped": int((verdict.fates != 0).sum()),
            "seconds": seconds,
            "processor_seconds": cpu,
            "documents_per_processor_second": documents / cpu,
            "entries_per_processor_second": 2 * documents / cpu,
            "largest_resident_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }


def compare(pythons: dict[str, Path], texts: Path, size: int, rounds: int) -> dict[str, Any]:
    from tests.helpers.benchmarks import run_script

    script = Path(__file__)
    loads, runs = [], []
    for number in range(rounds):
        loads.append(os.getloadavg()[0])
        sides = pythons.items()
        runs.append({side: run_script(script, python, "--side", side, "--texts", str(texts)) for side, python in sides})
        print(f"round {number}: {runs[-1]}", file=sys.stderr)
    rates = {side: [size / 1e6 / run[side]["processor_seconds"] for run in runs] for side in pythons}
    result: dict[str, Any] = {"load_average_at_start_of_round": loads}
    for side in pythons:
        result[side] = {"megabytes_per_processor_second": rates[side], "median": statistics.median(rates[side])}
    if "datatrove" in rates:
        ratios = [ours / theirs for ours, theirs in zip(rates["llmtrain"], rates["datatrove"], strict=True)]
        result["llmtrain_over_datatrove"] = statistics.median(ratios)
        result["llmtrain_over_datatrove_lowest_and_highest"] = [min(ratios), max(ratios)]
    return result


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/quickstart"))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=int, default=20, help="take one of so many documents")
    parser.add_argument("--documents", type=int, default=50_000_000, help="of the stage that finds repeats")
    parser.add_argument("--peers-python", type=Path, help="Python of the environment that holds datatrove")
    parser.add_argument("--side", choices=[*SIDES, "repeats"], help="used by the script itself")
    parser.add_argument("--texts", type=Path, help="used by the script itself")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.side:
        is_repeats = arguments.side == "repeats"
        print(
            json.dumps(find_repeats(arguments.documents) if is_repeats else run_side(arguments.side, arguments.texts))
        )
        return
    from tests.helpers.benchmarks import describe_machine, read_texts, read_versions, run_script

    pythons = {"llmtrain": Path(sys.executable)}
    versions = {"python": platform.python_version(), **read_versions(Path(sys.executable), "numpy")}
    if arguments.peers_python:
        pythons["datatrove"] = arguments.peers_python
        versions |= read_versions(arguments.peers_python, "datatrove", "spacy")
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    command = f"python -m tests.benchmarks.bench_deduplicate --rounds {arguments.rounds} --every {arguments.every}"
    command += f" --documents {arguments.documents}"
    command += " --peers-python PEERS/bin/python" if arguments.peers_python else ""
    texts = read_texts(arguments.data, arguments.every)
    size = sum(len(text.encode()) for text in texts)
    result: dict[str, Any] = {"command": command, "commit": commit, "machine": describe_machine(), "versions": versions}
    result["text"] = {"documents": len(texts), "bytes": size}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.json"
        path.write_text(json.dumps(texts))
        result["signatures"] = compare(pythons, path, size, arguments.rounds)
    result["repeats"] = run_script(
        Path(__file__), Path(sys.executable), "--side", "repeats", "--documents", str(arguments.documents)
    )
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
