"""Speed and quality of taking text from pages, beside trafilatura and datatrove's extractor.

    python tests/benchmarks/bench_extract.py --peers-python PEERS/bin/python --output docs/results/extract_cpu.json

The pages are the 27 of tests/data_pipelines/gold, each with the text a reader chose. Quality is the F1 of their words
as a multiset, mean over the pages. Speed is megabytes of HTML per second of processor time, decoding included:

    main_text     `extraction: main_text`: resiliparse, shallow lists kept
    resiliparse   resiliparse's main content alone, same options
    all_text      `extraction: all_text`: lxml and our walk
    trafilatura   `trafilatura.extract` as it comes
    datatrove     datatrove's Trafilatura extractor as it comes (favour_precision, deduplicate), without the process it
                  starts to watch the time

Each runs in a process of its own, in turn, several rounds; medians count. A round goes over the pages once to warm up
and is timed over as many passes as fill a second. trafilatura's `deduplicate` remembers what it has seen, so the
quality of datatrove is that of the first pass.

The peers live in an environment of their own: pip install datatrove trafilatura lxml_html_clean
"""

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Only the standard library above: the peers run in an environment of their own.

GOLD = Path(__file__).parents[1] / "data_pipelines" / "gold"
OURS, PEERS = ("main_text", "resiliparse", "all_text"), ("trafilatura", "datatrove")
PACKAGES = ("resiliparse", "lxml", "trafilatura", "datatrove")
LEAST_SECONDS = 1.0


def build_extractor(role: str) -> Callable[[bytes], str | None]:
    match role:
        case "main_text":
            from data_pipelines.sources.main_text import extract_main_text

            return extract_main_text
        case "all_text":
            from data_pipelines.sources.html import extract_text

            return extract_text
        case "resiliparse":
            from resiliparse.extract.html2text import extract_plain_text

            return lambda html: extract_plain_text(
                html.decode(errors="replace"), preserve_formatting=True, main_content=True, alt_texts=False
            )
        case "trafilatura":
            import trafilatura

            return lambda html: trafilatura.extract(html.decode(errors="replace"))
        case _:
            from datatrove.pipeline.extractors import Trafilatura

            extractor = Trafilatura()
            return lambda html: extractor.extract(html.decode(errors="replace"))


def score(text: str, gold: str) -> float:
    words, expected = Counter(re.findall(r"\w+", text)), Counter(re.findall(r"\w+", gold))
    return 2 * (words & expected).total() / (words.total() + expected.total())


def run_role(role: str) -> dict[str, Any]:
    """One round of one tool."""
    extract = build_extractor(role)
    names = sorted(path.name.removesuffix(".html.gz") for path in GOLD.glob("*.html.gz"))
    pages = {name: gzip.decompress((GOLD / f"{name}.html.gz").read_bytes()) for name in names}
    scores = {name: score(extract(page) or "", (GOLD / f"{name}.txt").read_text()) for name, page in pages.items()}
    size, passes, started = sum(map(len, pages.values())), 0, time.process_time()
    while (seconds := time.process_time() - started) < LEAST_SECONDS:
        for page in pages.values():
            extract(page)
        passes += 1
    found = {package: importlib.metadata.version(package) for package in PACKAGES if has_package(package)}
    return {"megabytes_per_second": passes * size / 1e6 / seconds, "f1": scores, "versions": found, "bytes": size}


def has_package(name: str) -> bool:
    return any(distribution.metadata["Name"].lower() == name for distribution in importlib.metadata.distributions())


def start_role(role: str, python: Path) -> dict[str, Any]:
    command = [str(python), str(Path(__file__).resolve()), "--role", role]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(f"{role} failed:\n{process.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """All tools in turn."""
    roles = dict.fromkeys(OURS, Path(sys.executable))
    if arguments.peers_python is not None:
        roles |= dict.fromkeys(PEERS, arguments.peers_python)
    runs: dict[str, list[dict[str, Any]]] = {role: [] for role in roles}
    loads = []
    for _ in range(arguments.rounds):
        loads.append(os.getloadavg()[0])
        for role, python in roles.items():
            runs[role].append(start_role(role, python))
    tools = {}
    for role, rows in runs.items():
        scores, rates = rows[0]["f1"], [row["megabytes_per_second"] for row in rows]
        tools[role] = {
            "f1_mean": statistics.mean(scores.values()),
            "f1_least": min(scores.values()),
            "f1": scores,
            "median_megabytes_per_processor_second": statistics.median(rates),
            "megabytes_per_processor_second": rates,
            "versions": rows[0]["versions"],
        }
    html = {"pages": len(tools["main_text"]["f1"]), "bytes": runs["main_text"][0]["bytes"]}
    skipped = {} if arguments.peers_python else dict.fromkeys(PEERS, "no --peers-python")
    return {"html": html, "load_average_at_start_of_round": loads, "skipped": skipped, "tools": tools}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers-python", type=Path, help="Python of the environment that holds the peers")
    parser.add_argument("--role", help="used by the script itself")
    arguments = parser.parse_args()
    if arguments.role:
        print(json.dumps(run_role(arguments.role)))
        return
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    command = f"python tests/benchmarks/bench_extract.py --rounds {arguments.rounds}"
    command += " --peers-python PEERS/bin/python" if arguments.peers_python else ""
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    machine = {"processor": processor[1] if processor else platform.processor(), "python": platform.python_version()}
    result = {"command": command, "commit": commit, "machine": machine} | compare(arguments)
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
