"""Speed of the rules for web text, beside datatrove's filters.

    python -m tests.benchmarks.bench_cleaning --peers-python PEERS/bin/python --output docs/results/cleaning_cpu.json

Needs prepared data (`llmtrain data prepare configs/quickstart.yaml`): the text is its documents of web pages and of
Wikipedia, one of `--every`. Both sides hold the texts in memory, are warmed up on the first twenty, and then judge
each with one chain on one core:

    llmtrain    gopher_quality, gopher_repetition, c4_quality, fineweb_quality
    datatrove   GopherQualityFilter, GopherRepetitionFilter, C4QualityFilter, FineWebQualityFilter, English

Twice: `chain` as in use, a dropped document is not looked at by later filters; `every_filter` shows the original text
to each filter, so that differences in what the first ones drop do not change the work. Thresholds are made equal where
defaults differ (C4: 5 words a line, 3 sentences; FineWeb: duplicate lines 0.1). Rates are megabytes of UTF-8 text per
second of processor time; each side runs in a process of its own, in turn, several rounds. A ratio is taken in each
round, the median counts. `kept` differs because words do: datatrove's are tokens of spaCy, ours are what white space
separates.

The peer lives in an environment of its own: pip install 'datatrove[processing]' spacy
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Only the standard library above: datatrove's part runs in the peer's environment.

MODES = ("chain", "every_filter")
WARM_UP = 20
SIDES = ("llmtrain", "datatrove")
Filter = Callable[[str], tuple[bool, str]]
"""From a text to whether it stays, and what it then is."""


def build_llmtrain() -> list[Filter]:
    from pydantic import TypeAdapter

    from data_pipelines.cleaning.steps import Step, build_steps
    from data_pipelines.cleaning.subject import Subject
    from llmtrain.config.cleaning import StepConfig

    names = ("gopher_quality", "gopher_repetition", "c4_quality", "fineweb_quality")
    adapter: TypeAdapter[list[StepConfig]] = TypeAdapter(list[StepConfig])
    steps = build_steps(adapter.validate_python([{"name": name} for name in names]))
    subjects: list[Subject] = []

    def build(step: Step) -> Filter:
        def judge(text: str) -> tuple[bool, str]:
            # Steps share a subject, as in the pipeline, as long as they look at the same text.
            if not subjects or subjects[0].text is not text:
                subjects[:] = [Subject(text)]
            return step(subjects[0]) is None, subjects[0].text

        return judge

    return [build(step) for _, step in steps]


def build_datatrove() -> list[Filter]:
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    filters = [
        GopherQualityFilter(),
        GopherRepetitionFilter(),
        C4QualityFilter(min_num_sentences=3, min_words_per_line=5),
        FineWebQualityFilter(char_duplicates_ratio=0.1),
    ]

    def build(one: Any) -> Filter:
        def judge(text: str) -> tuple[bool, str]:
            document = Document(text=text, id="0")
            result = one.filter(document)
            return (result if isinstance(result, bool) else result[0]), document.text

        return judge

    return [build(one) for one in filters]


def run_chain(filters: list[Filter], texts: list[str]) -> int:
    kept = 0
    for text in texts:
        for judge in filters:
            stays, text = judge(text)
            if not stays:
                break
        else:
            kept += 1
    return kept


def run_every_filter(filters: list[Filter], texts: list[str]) -> int:
    return sum(all([judge(text)[0] for judge in filters]) for text in texts)  # noqa: C419


def run_side(side: str, path: Path) -> dict[str, Any]:
    texts: list[str] = json.loads(path.read_text())
    filters = build_llmtrain() if side == "llmtrain" else build_datatrove()
    runs = dict(zip(MODES, (run_chain, run_every_filter), strict=True))
    result: dict[str, Any] = {}
    for mode, run in runs.items():
        run(filters, texts[:WARM_UP])
        started = time.process_time()
        kept = run(filters, texts)
        result[mode] = {"processor_seconds": time.process_time() - started, "kept": kept}
    return result


def compare(pythons: dict[str, Path], texts: Path, size: int, rounds: int) -> dict[str, Any]:
    from tests.helpers.benchmarks import run_script

    script = Path(__file__)
    loads, runs = [], []
    for number in range(rounds):
        loads.append(os.getloadavg()[0])
        sides = pythons.items()
        runs.append({side: run_script(script, python, "--side", side, "--texts", str(texts)) for side, python in sides})
        print(f"round {number}: {runs[-1]}", file=sys.stderr)
    result: dict[str, Any] = {"load_average_at_start_of_round": loads}
    for mode in MODES:
        rates = {side: [size / 1e6 / run[side][mode]["processor_seconds"] for run in runs] for side in pythons}
        part: dict[str, Any] = {
            side: {
                "megabytes_per_processor_second": rates[side],
                "median": statistics.median(rates[side]),
                "kept": runs[0][side][mode]["kept"],
            }
            for side in pythons
        }
        if "datatrove" in rates:
            ratios = [ours / theirs for ours, theirs in zip(rates["llmtrain"], rates["datatrove"], strict=True)]
            part["llmtrain_over_datatrove"] = statistics.median(ratios)
            part["llmtrain_over_datatrove_lowest_and_highest"] = [min(ratios), max(ratios)]
        result[mode] = part
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/quickstart"))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=int, default=20, help="take one of so many documents")
    parser.add_argument("--peers-python", type=Path, help="Python of the environment that holds datatrove")
    parser.add_argument("--side", choices=SIDES, help="used by the script itself")
    parser.add_argument("--texts", type=Path, help="used by the script itself")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(run_side(arguments.side, arguments.texts)))
        return
    from tests.helpers.benchmarks import describe_machine, read_texts, read_versions

    pythons = {"llmtrain": Path(sys.executable)}
    versions = {"python": platform.python_version(), **read_versions(Path(sys.executable), "numpy")}
    if arguments.peers_python:
        pythons["datatrove"] = arguments.peers_python
        versions |= read_versions(arguments.peers_python, "datatrove", "spacy", "nltk")
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    command = f"python -m tests.benchmarks.bench_cleaning --rounds {arguments.rounds} --every {arguments.every}"
    command += " --peers-python PEERS/bin/python" if arguments.peers_python else ""
    texts = read_texts(arguments.data, arguments.every)
    size = sum(len(text.encode()) for text in texts)
    result: dict[str, Any] = {"command": command, "commit": commit, "machine": describe_machine(), "versions": versions}
    result["text"] = {"documents": len(texts), "bytes": size}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.json"
        path.write_text(json.dumps(texts))
        result |= compare(pythons, path, size, arguments.rounds)
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
