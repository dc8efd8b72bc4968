"""Speed of the network and of its loss on CPU, side by side with their peers, float32.

    python tests/benchmarks/bench_model.py --output docs/results/model_cpu.json

loss     forward and backward of the fused cross-entropy, for several chunk sizes; beside it `F.cross_entropy` on all
         logits at once (matrix product, loss, backward)
model    forward, loss and backward of a Llama of 6 blocks; beside it `transformers.LlamaForCausalLM` (SDPA attention)
         with the same weights and tokens; and ours under each kind of activation recompute

Both sides of a comparison run in turn in one process; figures are medians over the rounds. Token ids are drawn at
random: nothing here depends on what they say.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.losses.linear_cross_entropy import linear_cross_entropy
from llmtrain.model.gpt import GPT, LossOutput
from llmtrain.model.huggingface import build_huggingface_config, to_huggingface
from llmtrain.model.initialize import initialize_weights
from llmtrain.model.recompute import Recompute
from llmtrain.plan.model_shape import ModelShape
from llmtrain.tracking.throughput import measure_matmul_peak

HIDDEN_SIZE, BATCH, LENGTH = 256, 8, 512
CHUNKS = (256, 512, 1024, 2048)
LOSS_CASES = ((1024, 8192), (4096, 8192), (8192, 8192), (1024, 32_768), (4096, 32_768))
RECOMPUTES: tuple[Recompute, ...] = ("none", "selective", "full")
SHAPE = ModelShape(
    family="llama",
    num_layers=6,
    hidden_size=HIDDEN_SIZE,
    num_attention_heads=8,
    num_key_value_heads=2,
    head_dim=32,
    intermediate_size=704,
    vocab_size=8192,
    padded_vocab_size=8192,
    max_sequence_length=LENGTH,
    tie_word_embeddings=False,
    norm_epsilon=1e-5,
    rope_theta=10_000.0,
    initializer_range=0.02,
)


def measure(functions: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each function; they take turns, and the first turn does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def bench_loss(tokens: int, vocab_size: int, rounds: int) -> dict[str, Any]:
    hidden = torch.randn(tokens, HIDDEN_SIZE, requires_grad=True)
    weight = torch.randn(vocab_size, HIDDEN_SIZE).mul_(0.02).requires_grad_()
    labels = torch.randint(0, vocab_size, (tokens,))

    def run_plain() -> None:
        F.cross_entropy(hidden @ weight.T, labels, reduction="sum").backward()  # type: ignore[no-untyped-call]

    def run_fused(chunk_tokens: int) -> None:
        loss, _ = linear_cross_entropy(hidden, weight, labels, vocab_size=vocab_size, chunk_tokens=chunk_tokens)
        loss.backward()  # type: ignore[no-untyped-call]

    functions: dict[str, Callable[[], None]] = {"all_logits": run_plain}
    for chunk in CHUNKS:
        functions[f"chunk_{chunk}"] = lambda chunk=chunk: run_fused(chunk)  # type: ignore[misc]
    seconds = measure(functions, rounds)
    speed_ups = {name: seconds["all_logits"] / value for name, value in seconds.items() if name != "all_logits"}
    return {"tokens": tokens, "vocab_size": vocab_size, "median_seconds": seconds, "times_as_fast": speed_ups}


def bench_model(rounds: int, peak: float) -> dict[str, Any]:
    from transformers import LlamaForCausalLM

    ids = torch.randint(0, SHAPE.vocab_size, (BATCH, LENGTH))
    labels = torch.cat([ids[:, 1:], torch.full((BATCH, 1), IGNORE_INDEX)], dim=1)
    functions: dict[str, Callable[[], None]] = {}

    def run_ours(model: GPT) -> None:
        model.zero_grad()
        output = model(ids, labels_BT=labels)
        assert isinstance(output, LossOutput)
        (output.loss_sum / (BATCH * (LENGTH - 1))).backward()  # type: ignore[no-untyped-call]

    for kind in RECOMPUTES:
        model = GPT(SHAPE, activation_recompute=kind)
        initialize_weights(model, seed=0)
        functions[f"llmtrain_recompute_{kind}"] = lambda model=model: run_ours(model)  # type: ignore[misc]
    other: Any = LlamaForCausalLM(build_huggingface_config(SHAPE, {}))
    other.load_state_dict(to_huggingface(model.state_dict(), SHAPE))

    def run_other() -> None:
        other.zero_grad()
        other(ids, labels=ids).loss.backward()

    functions["huggingface_llama"] = run_other
    seconds = measure(functions, rounds)
    flops = SHAPE.compute_flops_per_token(LENGTH) * ids.numel()
    return {
        "parameters": SHAPE.num_parameters,
        "batch": BATCH,
        "sequence_length": LENGTH,
        "tokens_per_second": {name: ids.numel() / value for name, value in seconds.items()},
        "model_flops_utilization": {name: flops / value / peak for name, value in seconds.items()},
        "times_as_fast_as_huggingface": seconds["huggingface_llama"] / seconds["llmtrain_recompute_none"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    peak = measure_matmul_peak(torch.device("cpu"), torch.float32, seconds=1.0)
    result = {
        "threads": arguments.threads,
        "torch": torch.__version__,
        "matmul_peak_gflops": peak / 1e9,
        "model": bench_model(arguments.rounds, peak),
        "loss": [bench_loss(tokens, vocab_size, arguments.rounds) for tokens, vocab_size in LOSS_CASES],
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
