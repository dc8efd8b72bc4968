"""Training speed on CPU, side by side: llmtrain, a bare PyTorch loop on the same model, Hugging Face Trainer.

    python tests/benchmarks/bench_training.py --data data/quickstart --output docs/results/training_cpu.json

Needs prepared data (`llmtrain data prepare configs/quickstart.yaml`). Same architecture, tokens per step, float32,
AdamW, clipping and threads; one process each, in turn, several rounds; each reports tokens per second over all steps
but the first ones. The peers: `transformers.Trainer` with LlamaForCausalLM (SDPA attention) and its default optimizer;
and a loop of forward, backward, clip, step that holds nothing else.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = {
    "quickstart": {
        "num_layers": 4,
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_attention_heads": 4,
        "length": 256,
        "batch": 16,
    },
    "wider": {
        "num_layers": 6,
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_attention_heads": 8,
        "length": 512,
        "batch": 4,
    },
}
WARMUP_STEPS = 5


def make_overrides(size: str, steps: int) -> list[str]:
    shape = dict(SIZES[size])
    length, batch = shape.pop("length"), shape.pop("batch")
    return [
        *(f"model.{name}={value}" for name, value in shape.items()),
        "model.num_key_value_heads=2",
        f"batch.sequence_length={length}",
        f"batch.micro_batch_size={batch}",
        f"batch.global_batch_size={batch}",
        f"training.train_steps={steps}",
        "training.log_every_steps=5",
        "schedule.warmup_steps=1",
    ]


def run_llmtrain(arguments: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory() as folder:
        quiet = ["tracking.mlflow=false", "evaluation.sequences_per_source=1", "sampling.max_new_tokens=1"]
        quiet += ["evaluation.evaluate_every_steps=null", "sampling.sample_every_steps=null", "data.verify=size"]
        quiet += ["checkpoint.save_every_steps=null", f"run.root={folder}", f"data.folder={arguments.data}"]
        command = [sys.executable, "-m", "llmtrain", "pretrain", "configs/quickstart.yaml", "--nproc", "1", *quiet]
        subprocess.run([*command, *make_overrides(arguments.size, arguments.steps)], check=True, capture_output=True)
        lines = [json.loads(line) for line in (Path(folder) / "quickstart" / "metrics.jsonl").read_text().splitlines()]
    rows = [line["metrics"] for line in lines if "perf/step_seconds" in line["metrics"] and line["step"] > WARMUP_STEPS]
    seconds = statistics.fmean(row["perf/step_seconds"] for row in rows)
    return SIZES[arguments.size]["batch"] * SIZES[arguments.size]["length"] / seconds


def load_batches(arguments: argparse.Namespace) -> tuple[Any, Any, list[Any]]:
    """The configuration, the plan and the batches that llmtrain would train on."""
    from llmtrain.config.loader import load_config
    from llmtrain.data.loader import build_loader
    from llmtrain.plan.build import build_plan
    from llmtrain.process.world import World
    from llmtrain.stages.training_data import open_training_data

    overrides = [*make_overrides(arguments.size, arguments.steps), f"data.folder={arguments.data}", "data.verify=size"]
    config = load_config([Path("configs/quickstart.yaml")], overrides).config
    data = open_training_data(config.data, World())
    plan = build_plan(config, 1, data.tokenizer.vocab_size)
    loader = build_loader(config, plan, data.train, 0)
    batches = [loader.load_step(step)[0] for step in range(arguments.steps)]
    loader.close()
    return config, plan, batches


def run_bare(arguments: argparse.Namespace) -> float:
    import torch

    from llmtrain.model.gpt import GPT
    from llmtrain.model.initialize import initialize_weights

    torch.set_num_threads(arguments.threads)
    config, plan, batches = load_batches(arguments)
    model = GPT(plan.shape)
    initialize_weights(model, config.run.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    for step, batch in enumerate(batches):
        if step == WARMUP_STEPS:
            started = time.perf_counter()
        output = model(batch.input_ids_BT, labels_BT=batch.labels_BT)
        (output.loss_sum / batch.labels_BT.numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        float(output.loss_sum)
    tokens_per_step: int = batches[0].input_ids_BT.numel()
    return (len(batches) - WARMUP_STEPS) * tokens_per_step / (time.perf_counter() - started)


def run_trainer(arguments: argparse.Namespace) -> float:
    import torch
    from transformers import LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from llmtrain.model.huggingface import build_huggingface_config

    torch.set_num_threads(arguments.threads)
    _, plan, batches = load_batches(arguments)
    rows = [
        {"input_ids": ids, "labels": ids} for batch in batches for ids in batch.input_ids_BT
    ]  # the model shifts labels itself
    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=SIZES[arguments.size]["batch"],
            max_steps=arguments.steps,
            learning_rate=1e-3,
            weight_decay=0.1,
            max_grad_norm=1.0,
            logging_steps=5,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        special_ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
        model = LlamaForCausalLM(build_huggingface_config(plan.shape, special_ids))
        Trainer(model=model, args=settings, train_dataset=rows, callbacks=[Clock()]).train()
    seconds = times[-1] - times[WARMUP_STEPS - 1]
    tokens_per_step: int = batches[0].input_ids_BT.numel()
    return (len(times) - WARMUP_STEPS) * tokens_per_step / seconds


ROLES = {"llmtrain": run_llmtrain, "bare_loop": run_bare, "huggingface_trainer": run_trainer}


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all roles in turn for each size, in processes of their own."""
    import torch

    from llmtrain.config.loader import load_config
    from llmtrain.config.model import LlamaModelConfig
    from llmtrain.plan.model_shape import build_model_shape
    from llmtrain.tracking.throughput import measure_matmul_peak

    torch.set_num_threads(arguments.threads)
    peak = measure_matmul_peak(torch.device("cpu"), torch.float32, seconds=1.0)
    result: dict[str, Any] = {"threads": arguments.threads, "matmul_peak_gflops": peak / 1e9, "sizes": {}}
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
    for size in arguments.sizes:
        speeds: dict[str, list[float]] = {role: [] for role in ROLES}
        for _ in range(arguments.rounds):
            for role in ROLES:
                command = [sys.executable, __file__, "--role", role, "--size", size, "--data", str(arguments.data)]
                command += ["--steps", str(arguments.steps), "--threads", str(arguments.threads)]
                output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
                speeds[role].append(float(output.splitlines()[-1]))
        overrides = make_overrides(size, arguments.steps)
        model = load_config([Path("configs/quickstart.yaml")], overrides).config.model
        assert isinstance(model, LlamaModelConfig)
        shape = build_model_shape(model, 4096, SIZES[size]["length"])
        flops = shape.compute_flops_per_token(SIZES[size]["length"])
        medians = {role: statistics.median(values) for role, values in speeds.items()}
        result["sizes"][size] = {
            "parameters": shape.num_parameters,
            "tokens_per_second": speeds,
            "median": medians,
            "llmtrain_over_huggingface_trainer": medians["llmtrain"] / medians["huggingface_trainer"],
            "llmtrain_over_bare_loop": medians["llmtrain"] / medians["bare_loop"],
            "model_flops_utilization": {role: speed * flops / peak for role, speed in medians.items()},
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/quickstart"))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--role", choices=ROLES)
    parser.add_argument("--size", choices=SIZES, default="quickstart")
    arguments = parser.parse_args()
    if arguments.role:
        print(ROLES[arguments.role](arguments))
        return
    text = json.dumps(compare(arguments), indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
