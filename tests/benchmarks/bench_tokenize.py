"""Speed and memory of tokenizing documents into shards, beside SentencePiece alone and the tools of others.

    python tests/benchmarks/bench_tokenize.py --peers-python PEERS/bin/python --megatron MEGATRON_FOLDER \\
        --output docs/results/tokenize_cpu.json

Needs prepared data (`llmtrain data prepare configs/quickstart.yaml`): the text is its documents, all sources one after
the other; the tokenizer is trained on them anew, with a vocabulary of the usual size. Two cores, two threads or
workers:

    llmtrain        documents.jsonl.zst -> `write_shards`: read, cut, encode, write with origins, sync, checksum
    llmtrain_one    the same without worker processes
    llmtrain_fast   with `corpus.tokenizer.accelerator: gigatoken`, its comparisons with SentencePiece included
    llmtrain_fast_one
    sentencepiece   `encode(texts, num_threads=2)` on texts in memory, ids as Python lists: the roof
    megatron        Megatron-LM tools/preprocess_data.py, the same model, JSONL in, 2 workers
    megatron_fast   Megatron-LM tools/preprocess_data_fast.py, gigatoken on the Hugging Face twin of the model, JSONL in
    datatrove       JsonlReader and DocumentTokenizer (no shuffling), the twin, two JSONL files in, 2 tasks, 2 workers

Each runs in a process of its own, in turn, several rounds. Ratios are taken in each round, of rates without start-up
(imports, loading the tokenizer), which is in favour of the peers; their median counts. llmtrain's clock runs while its
worker processes start. The clock of a peer runs from
the moment it says that it starts with the documents to the last change of its output. `tokens` shows that all did the
same work: the peers end a document with one token, llmtrain also begins it with one. Memory is the peak of resident
memory of llmtrain without worker processes, on the text once and four times over.

The peers live in an environment of their own:

    pip install 'torch==2.13.0' triton sentencepiece transformers gigatoken awkward 'datatrove[processing]' orjson

with a CPU build of torch. Megatron-LM imports triton and, from `typing`, `override`: under Python 3.11 a file
`override.pth` with `import typing, typing_extensions; typing.override = typing_extensions.override` in site-packages
gives it the latter. Neither matters for speed. A peer that is not given is skipped, and the result says so.
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import itertools
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# Only the standard library above: datatrove's part runs in the peers' environment.

CORES, COPIES = 2, (1, 4)
LLMTRAIN = ("llmtrain", "llmtrain_one", "llmtrain_fast", "llmtrain_fast_one")
PEERS = ("megatron", "megatron_fast", "datatrove")
STARTS = {"megatron": "Time to startup", "megatron_fast": "Tokenizing file"}
PEER_PACKAGES = ("torch", "datatrove", "tokenizers", "sentencepiece", "gigatoken", "transformers")


def read_memory(name: str) -> float:
    """VmRSS or its peak VmHWM of this process, MiB. (ru_maxrss will not do: a child inherits its parent's.)"""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def find_end(folder: Path) -> float:
    """When anything in a folder was last changed, seconds since the epoch."""
    return max(path.stat().st_mtime for path in folder.rglob("*") if path.is_file())


def count_tokens(folder: Path, pattern: str) -> int:
    """Tokens in a peer's files of two bytes a token."""
    return sum(path.stat().st_size for path in folder.glob(pattern)) // 2


def write_inputs(data: Path, work: Path, vocab_size: int) -> dict[str, int]:
    """The same text in each tool's format, and the tokenizer."""
    from data_pipelines.document import identify, read_documents, write_documents
    from data_pipelines.train_tokenizer import train_tokenizer
    from llmtrain.config.corpus import TokenizerConfig

    sources = sorted((data / "documents").glob("*.jsonl.zst"))
    documents = [
        dataclasses.replace(document, id=identify(document.text))
        for source in sources
        for document in read_documents(source)
    ]
    for copies in COPIES:
        write_documents(work / f"documents_{copies}.jsonl.zst", documents * copies)
    texts = [document.text for document in documents]
    write_lines(work / "documents.jsonl", texts)
    halves: tuple[list[str], list[str]] = ([], [])
    sizes = [0, 0]
    for text in texts:
        smaller = sizes.index(min(sizes))
        halves[smaller].append(text)
        sizes[smaller] += len(text)
    for number, half in enumerate(halves):
        write_lines(work / "halves" / f"{number}.jsonl", half)
    config = TokenizerConfig(vocab_size=vocab_size, train_characters=10_000_000)
    train_tokenizer({source.name: functools.partial(read_texts, source) for source in sources}, config, work / "t")
    size = sum(len(text.encode()) for text in texts)
    return {"documents": len(texts), "bytes": size, "vocab_size": vocab_size}


def write_lines(path: Path, texts: Iterable[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)


def read_texts(path: Path) -> Iterator[str]:
    from data_pipelines.document import read_documents

    return (document.text for document in read_documents(path))


def run_llmtrain(role: str, work: Path, copies: int) -> dict[str, float]:
    from data_pipelines.document import read_documents
    from data_pipelines.write_shards import write_shards
    from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer

    tokenizer = Tokenizer.load(work / "t")
    before = read_memory("VmHWM")
    with tempfile.TemporaryDirectory(dir=work) as folder:
        started = time.perf_counter()
        manifests = write_shards(
            read_documents(work / f"documents_{copies}.jsonl.zst"),
            Path(folder),
            tokenizer,
            source="text",
            licence="several",
            provenance={},
            validation_fraction=0.01,
            shard_tokens=100_000_000,
            workers=1 if role.endswith("_one") else CORES,
            accelerator="gigatoken" if "_fast" in role else None,
        )
        seconds = time.perf_counter() - started
    tokens = sum(manifest.token_count for manifest in manifests.values())
    peak = read_memory("VmHWM")
    return {"seconds": seconds, "tokens": tokens, "peak_memory_mib": peak, "memory_before_mib": before}


def run_sentencepiece(work: Path) -> dict[str, float]:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(work / "t" / "tokenizer.model"))
    texts = list(read_texts(work / "documents_1.jsonl.zst"))
    started = time.perf_counter()
    ids = processor.encode(texts, num_threads=CORES)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "tokens": sum(map(len, ids))}


def run_datatrove(work: Path) -> dict[str, float]:
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    with tempfile.TemporaryDirectory(dir=work) as name:
        folder, notes = Path(name) / "tokens", Path(name) / "notes"
        notes.mkdir()
        twin = str(work / "t" / "tokenizer.json")
        pipeline = [
            JsonlReader(str(work / "halves")),
            functools.partial(note_start, folder=notes),
            DocumentTokenizer(str(folder), twin, eos_token="</s>", shuffle_documents=False),
        ]
        # "spawn" makes the workers children of this process, so that their processor time is counted.
        settings = {"tasks": CORES, "workers": CORES, "start_method": "spawn"}
        LocalPipelineExecutor(pipeline, logging_dir=str(Path(name) / "logs"), **settings).run()
        started = min(float(path.read_text()) for path in notes.iterdir())
        return {"seconds": find_end(folder) - started, "tokens": count_tokens(folder, "*.ds")}


def note_start(documents: Any, rank: int, world_size: int, folder: Path) -> Any:
    """A step of datatrove's pipeline that notes when the first document is asked for; the tokenizer is loaded then."""
    (folder / str(rank)).write_text(str(time.time()))
    yield from documents


def run_megatron(peer: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Start a tool of Megatron-LM and note when it says that it starts with the documents."""
    is_fast, work = peer == "megatron_fast", arguments.work
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name) / "tokens"
        folder.mkdir()
        tool = arguments.megatron / "tools" / f"preprocess_data{'_fast' if is_fast else ''}.py"
        command = [str(arguments.peers_python), "-u", str(tool), "--append-eod"]
        command += ["--input", str(work / "documents.jsonl"), "--output-prefix", str(folder / "text")]
        if is_fast:
            command += ["--tokenizer-type", "HuggingFaceTokenizer", "--use-gigatoken", "--tokenizer-model"]
            command += [str(work / "t")]
        else:
            command += ["--tokenizer-type", "GPTSentencePieceTokenizer", "--tokenizer-model"]
            command += [str(work / "t" / "tokenizer.model"), "--workers", str(CORES)]
        with (Path(name) / "errors").open("w+") as errors:
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
                assert process.stdout is not None
                times = [time.time() for line in process.stdout if line.startswith(STARTS[peer])]
            if process.returncode:
                errors.seek(0)
                raise RuntimeError(f"{tool} failed:\n{errors.read()[-2000:]}")
        return {"seconds": find_end(folder) - times[0], "tokens": count_tokens(folder, "*.bin")}


def run_role(arguments: argparse.Namespace) -> dict[str, float]:
    match arguments.role:
        case role if role in LLMTRAIN:
            return run_llmtrain(role, arguments.work, arguments.copies)
        case "sentencepiece":
            return run_sentencepiece(arguments.work)
        case "datatrove":
            return run_datatrove(arguments.work)
        case _:
            return run_megatron(arguments.role, arguments)


def start_role(role: str, arguments: argparse.Namespace, copies: int = 1) -> dict[str, float]:
    """Run a role in a process of its own; adds wall and processor seconds of all of it, start-up included."""
    python = arguments.peers_python if role == "datatrove" else sys.executable
    command = [str(python), str(Path(__file__).resolve()), "--role", role, "--work", str(arguments.work)]
    command += ["--copies", str(copies)]
    if role in STARTS:
        command += ["--peers-python", str(arguments.peers_python), "--megatron", str(arguments.megatron)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise RuntimeError(f"{role} failed:\n{process.stderr[-3000:]}")
    result: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    processor_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result | {"seconds_with_startup": seconds, "processor_seconds_with_startup": processor_seconds}


def find_skipped(arguments: argparse.Namespace) -> dict[str, str]:
    """Peers that cannot run here, and why."""
    if arguments.peers_python is None:
        return dict.fromkeys(PEERS, "no --peers-python")
    skipped = {} if arguments.megatron else dict.fromkeys(("megatron", "megatron_fast"), "no --megatron")
    versions = read_peer_versions(arguments.peers_python)
    skipped |= {peer: f"{peer} is not installed" for peer in ("datatrove",) if peer not in versions}
    if "gigatoken" not in versions:
        skipped.setdefault("megatron_fast", "gigatoken is not installed")
    return skipped


def read_peer_versions(python: Path) -> dict[str, str]:
    code = (
        "import importlib.metadata as m, json\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        f"print(json.dumps({{name: found[name] for name in {PEER_PACKAGES} if name in found}}))"
    )
    versions: dict[str, str] = json.loads(subprocess.check_output([str(python), "-c", code], text=True))
    return versions


def compare(arguments: argparse.Namespace, size: int) -> dict[str, Any]:
    """Run all roles in turn; rates in megabytes of UTF-8 text per second."""
    skipped = find_skipped(arguments)
    runs: dict[str, list[dict[str, float]]] = {
        role: [] for role in (*LLMTRAIN, "sentencepiece", *PEERS) if role not in skipped
    }
    loads = []
    for number in range(arguments.rounds):
        loads.append(os.getloadavg()[0])
        for role in runs:
            runs[role].append(start_role(role, arguments))
            print(f"round {number}: {role} {runs[role][-1]['seconds']:.1f} s", file=sys.stderr)
    result: dict[str, Any] = {"load_average_at_start_of_round": loads, "skipped": skipped, "tools": {}, "ratios": {}}
    for role, rows in runs.items():
        rates = {key: [size / 1e6 / row[key] for row in rows] for key in ("seconds", "seconds_with_startup")}
        result["tools"][role] = {
            "tokens": rows[0]["tokens"],
            "megabytes_per_second": rates["seconds"],
            "median": statistics.median(rates["seconds"]),
            "median_with_startup": statistics.median(rates["seconds_with_startup"]),
            "median_processor_seconds_with_startup": statistics.median(
                row["processor_seconds_with_startup"] for row in rows
            ),
        }
    for own, role in itertools.product(("llmtrain", "llmtrain_fast"), [role for role in runs if role not in LLMTRAIN]):
        for key, name in (("seconds", ""), ("seconds_with_startup", "_with_startup")):
            ratios = divide(runs[role], runs[own], key)
            result["ratios"][f"{own}_over_{role}{name}"] = statistics.median(ratios)
            if not name:
                result["ratios"][f"{own}_over_{role}_lowest_and_highest"] = [min(ratios), max(ratios)]
    for own in ("llmtrain", "llmtrain_fast"):
        ratios = divide(runs[f"{own}_one"], runs[own], "seconds")
        result["ratios"][f"{own}_over_{own}_one"] = statistics.median(ratios)
    return result


def divide(theirs: list[dict[str, float]], ours: list[dict[str, float]], key: str) -> list[float]:
    """Their seconds by ours, round by round."""
    return [their[key] / our[key] for their, our in zip(theirs, ours, strict=True)]


def measure_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak of resident memory by copies of the text, MiB."""
    result: dict[str, Any] = {}
    for role in ("llmtrain_one", "llmtrain_fast_one"):
        runs = {copies: start_role(role, arguments, copies) for copies in COPIES}
        peaks = {f"text_times_{copies}": run["peak_memory_mib"] for copies, run in runs.items()}
        result[role] = {"before_mib": runs[1]["memory_before_mib"], "peak_mib": peaks}
    return result


def describe_machine() -> dict[str, Any]:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"processor": found[1] if found else platform.machine(), "cores_used": CORES, "cores": os.cpu_count()}


def describe_versions(arguments: argparse.Namespace) -> dict[str, Any]:
    ours = {name: importlib.metadata.version(name) for name in ("sentencepiece", "gigatoken", "numpy", "zstandard")}
    peers = read_peer_versions(arguments.peers_python) if arguments.peers_python else {}
    if arguments.megatron:
        text = (arguments.megatron / "megatron" / "core" / "package_info.py").read_text()
        peers["megatron-core"] = ".".join(re.findall(r"^(?:MAJOR|MINOR|PATCH) = (\d+)", text, re.MULTILINE))
    return {"python": platform.python_version(), "llmtrain": ours, "peers": peers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/quickstart"))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocab-size", type=int, default=32_768)
    parser.add_argument("--peers-python", type=Path, help="Python of the environment that holds the peers")
    parser.add_argument("--megatron", type=Path, help="a checkout of Megatron-LM")
    parser.add_argument("--role", help="used by the script itself")
    parser.add_argument("--work", type=Path, help="used by the script itself")
    parser.add_argument("--copies", type=int, default=1, help="used by the script itself")
    arguments = parser.parse_args()
    if arguments.role:
        print(json.dumps(run_role(arguments)))
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    command = (
        f"python tests/benchmarks/bench_tokenize.py --rounds {arguments.rounds} --vocab-size {arguments.vocab_size}"
    )
    command += " --peers-python PEERS/bin/python" if arguments.peers_python else ""
    command += " --megatron MEGATRON_FOLDER" if arguments.megatron else ""
    result: dict[str, Any] = {"command": command, "commit": commit}
    result |= {"machine": describe_machine(), "versions": describe_versions(arguments)}
    with tempfile.TemporaryDirectory() as folder:
        arguments.work = Path(folder)
        result["text"] = write_inputs(arguments.data, arguments.work, arguments.vocab_size)
        result |= compare(arguments, result["text"]["bytes"])
        result["memory"] = measure_memory(arguments)
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
