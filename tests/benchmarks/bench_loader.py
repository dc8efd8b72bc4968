"""Speed of the data path on CPU: reading batches, opening a huge corpus, packing documents.

    python tests/benchmarks/bench_loader.py --output docs/results/loader_cpu.json

    load     tokens per second that `load_step` delivers, one process and its prefetch thread, three sources, rows of
             1024 tokens; beside it the barest reader there is: windows at random places of one memory-mapped array,
             each converted and stacked (as small trainers do), in the same process, in turn, median of several rounds
    open     2000 shards of 500 M tokens with origins (sparse files): seconds from nothing opened to the first batch
             in hand, and what resident memory grew by at its peak, in a process of its own
    pack     documents per second of best-fit packing, one million documents of lognormal length

Token ids are drawn at random: nothing here depends on what they say. Files lie in the page cache.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from llmtrain.config.loader import load_config
from llmtrain.config.root import Config
from llmtrain.shards.format import ShardHeader
from llmtrain.shards.manifest import OriginsEntry, ShardEntry, ShardManifest, write_manifest
from llmtrain.shards.origins import Origin, compute_file_bytes
from llmtrain.shards.packing import build_pack_indexes, pack_documents
from llmtrain.shards.reader import ShardedTokens
from llmtrain.shards.writer import ShardWriter

LENGTH, VOCAB_SIZE, STEPS = 1024, 32_000, 300
SHARES = {"web": 0.6, "code": 0.3, "wikipedia": 0.1}
HUGE_SHARDS, HUGE_SHARD_TOKENS, HUGE_RECORD_BYTES = 2000, 500_000_000, 100
SETTINGS: dict[str, Any] = {
    "split": "train",
    "licence": "none",
    "vocab_size": VOCAB_SIZE,
    "bos_id": 1,
    "eos_id": 2,
    "tokenizer_sha256": "0" * 64,
    "provenance": {},
}


def draw_lengths(count: int) -> np.ndarray:
    """Lengths of documents, some 500 tokens on average, long tail."""
    return np.random.default_rng(0).lognormal(5.6, 1.1, count).astype(np.int64) + 2


def read_memory(name: str) -> float:
    """VmRSS or its peak VmHWM of this process, MiB. (ru_maxrss will not do: a child inherits its parent's.)"""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def make_config(batch: int, packing: str, sources: dict[str, float]) -> Config:
    overrides = [
        f"batch.sequence_length={LENGTH}",
        f"batch.micro_batch_size={batch}",
        f"batch.global_batch_size={batch}",
        f"data.packing={packing}",
        "training.train_steps=1000",
        "data.sources=" + json.dumps({name: {"weight": share} for name, share in sources.items()}),
    ]
    return load_config([Path("configs/quickstart.yaml")], overrides).config


def write_source(folder: Path, name: str, tokens: int) -> None:
    draw = np.random.default_rng(1)
    with ShardWriter(folder, source=name, shard_tokens=8_000_000, **SETTINGS) as writer:
        for _ in range(tokens // 2_000_000):
            lengths = draw_lengths(4000)
            ids = draw.integers(4, VOCAB_SIZE, int(lengths.sum()))
            ends = np.cumsum(lengths)
            origins = [Origin(f"{number:032x}", "drawn", "none") for number in range(len(lengths))]
            ids[ends - 1], ids[ends - lengths] = 2, 1
            writer.write_documents(ids, lengths, origins)


def measure_load(rounds: int) -> dict[str, Any]:
    """Tokens per second of the loader and of the bare reader, in turn."""
    import torch

    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in SHARES:
            write_source(Path(folder) / name, name, 40_000_000)
        shards = {name: ShardedTokens(Path(folder) / name) for name in SHARES}
        for opened in shards.values():
            build_pack_indexes(opened, LENGTH)
        for batch in (16, 64):
            speeds: dict[str, list[float]] = {"concatenate": [], "best_fit": [], "bare": []}
            for _ in range(rounds):
                for packing in ("concatenate", "best_fit"):
                    speeds[packing].append(time_loader(shards, batch, packing))
                speeds["bare"].append(time_bare(Path(folder) / "web" / "shard-00000.tokens", batch))
            medians = {name: statistics.median(values) for name, values in speeds.items()}
            ratios = {f"{name}_over_bare": medians[name] / medians["bare"] for name in ("concatenate", "best_fit")}
            result[f"batch_{batch}"] = {"tokens_per_second": speeds, "median": medians, **ratios}
    return result


def time_loader(shards: dict[str, ShardedTokens], batch: int, packing: str) -> float:
    from llmtrain.data.loader import build_loader
    from llmtrain.plan.build import build_plan

    config = make_config(batch, packing, SHARES)
    loader = build_loader(config, build_plan(config, 1, VOCAB_SIZE), shards, 0)
    for step in range(5):
        loader.load_step(step)
    started = time.perf_counter()
    for step in range(5, 5 + STEPS):
        loader.load_step(step)
    seconds = time.perf_counter() - started
    loader.close()
    return STEPS * batch * LENGTH / seconds


def time_bare(path: Path, batch: int) -> float:
    import torch

    tokens = np.memmap(path, np.uint16, "r", 64)
    draw = np.random.default_rng(0)
    started = time.perf_counter()
    for _ in range(STEPS):
        starts = draw.integers(0, len(tokens) - LENGTH - 1, batch).tolist()
        torch.stack([torch.from_numpy(tokens[start : start + LENGTH].astype(np.int64)) for start in starts])
        torch.stack([torch.from_numpy(tokens[start + 1 : start + LENGTH + 1].astype(np.int64)) for start in starts])
    return STEPS * batch * LENGTH / (time.perf_counter() - started)


def write_huge(folder: Path) -> None:
    """A corpus of a trillion tokens that takes no room: only headers are written, the rest are holes."""
    header = ShardHeader(2, HUGE_SHARD_TOKENS, HUGE_SHARD_TOKENS // 500)
    entries = []
    for number in range(HUGE_SHARDS):
        name = f"shard-{number:05d}.tokens"
        with (folder / name).open("wb") as file:
            file.write(header.encode())
            file.truncate(header.file_bytes)
        size = compute_file_bytes(header.document_count, HUGE_RECORD_BYTES * header.document_count)
        origins = OriginsEntry(file=f"shard-{number:05d}.documents", bytes=size, sha256=f"{number:064x}")
        with (folder / origins.file).open("wb") as file:
            file.truncate(size)
        counts = {"token_count": header.token_count, "document_count": header.document_count, "origins": origins}
        entries.append(ShardEntry(file=name, bytes=header.file_bytes, sha256=f"{number:064x}", **counts))
    write_manifest(folder, ShardManifest(source="web", shards=entries, **SETTINGS))


def open_huge(folder: Path) -> dict[str, float]:
    """Open the corpus and read the first batch; run in a process of its own."""
    from llmtrain.data.loader import build_loader
    from llmtrain.plan.build import build_plan

    config = make_config(16, "concatenate", {"web": 1.0})
    plan = build_plan(config, 1, VOCAB_SIZE)
    before = read_memory("VmHWM")
    started = time.perf_counter()
    shards = ShardedTokens(folder)
    opened = time.perf_counter()
    loader = build_loader(config, plan, {"web": shards}, 0)
    loader.load_step(0)
    first_batch = time.perf_counter()
    for step in range(1, 50):
        loader.load_step(step)
    loader.close()
    grown = read_memory("VmHWM") - before
    return {
        "tokens": shards.token_count,
        "shards": HUGE_SHARDS,
        "open_seconds": opened - started,
        "first_batch_seconds": first_batch - started,
        "peak_memory_growth_after_50_steps_mib": grown,
        "memory_before_mib": before,
    }


def measure_open() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        write_huge(Path(folder))
        command = [sys.executable, __file__, "--open", folder]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output)
    return result


def measure_pack(documents: int) -> dict[str, Any]:
    lengths = draw_lengths(documents)
    ends = np.cumsum(lengths).astype(np.uint64)
    result: dict[str, Any] = {"documents": documents, "tokens": int(ends[-1])}
    for length in (4096, 1024):  # a peak shows only above the one before: the larger one comes second
        before = read_memory("VmHWM")
        started = time.perf_counter()
        index = pack_documents(ends, length)
        seconds = time.perf_counter() - started
        result[f"rows_of_{length}"] = {
            "documents_per_second": documents / seconds,
            "tokens_per_second": int(ends[-1]) / seconds,
            "filled_fraction": int(ends[-1]) / (index.num_rows * length),
            "peak_memory_growth_mib": read_memory("VmHWM") - before,
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--open", type=Path, help="used by the script itself")
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(open_huge(arguments.open)))
        return
    result = {
        "cores": os.cpu_count(),
        "pack": measure_pack(arguments.documents),
        "open": measure_open(),
        "load": measure_load(arguments.rounds),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
