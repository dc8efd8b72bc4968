"""Speed of PPO beside TRL's own trainer, and where the time goes.

    python -m tests.benchmarks.bench_ppo --output docs/results/ppo_cpu.json

Needs the models of the quickstart (`llmtrain run configs/quickstart.yaml`). Both sides start from the same policy and
reward model, answer the same prompts with 48 tokens at most at temperature 1, in rollouts of 64, and make four passes
of one mini-batch over each:

    llmtrain    `llmtrain ppo`, without evaluations, checkpoints and MLflow
    trl         TRL's PPOTrainer as it is, `stop_token="eos"`

Each runs in a process of its own, in turn, several rounds, on `--threads` threads. Samples per second are taken from
the end of the second rollout on. TRL always draws 48 tokens and then cuts; ours stops when all have ended.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.helpers.benchmarks import describe_machine

ROLLOUTS, BATCH, TOKENS, EPOCHS, MICRO = 10, 64, 48, 4, 32
SIDES = ("llmtrain", "trl")


def run_llmtrain(run: Path, work: Path) -> dict[str, Any]:
    """Train through the command line; rates of each rollout from its metrics."""
    overrides = {
        "run.name": "bench",
        "run.root": str(work),
        "sft.data": None,
        "ppo.model": str(run / "sft" / "model"),
        "ppo.train_steps": ROLLOUTS,
        "ppo.global_batch_size": BATCH,
        "ppo.micro_batch_size": MICRO,
        "ppo.epochs": EPOCHS,
        "ppo.evaluation_prompts": 1,
        "ppo.evaluate_every_steps": "null",
        "ppo.save_every_steps": "null",
        "ppo.log_every_steps": 1,
        "ppo.guards.max_kl": "null",
        "ppo.guards.max_length_growth": "null",
        "tracking.mlflow": "false",
    }
    rewards = f"ppo.rewards={{model: {{kind: model, path: {run / 'reward' / 'model'}}}}}"
    arguments = [f"{key}={value}" for key, value in overrides.items() if value is not None]
    command = [sys.executable, "-m", "llmtrain", "ppo", str(run / "sft" / "config.yaml"), *arguments, rewards]
    subprocess.run(command, check=True, capture_output=True)
    lines = [json.loads(line) for line in (work / "bench" / "ppo" / "metrics.jsonl").read_text().splitlines()]
    rows = [line["metrics"] for line in lines if "ppo/score" in line["metrics"]][1:]
    parts = ("generation", "scoring", "reward", "update")
    seconds = {name: statistics.mean(row[f"perf/{name}_seconds"] for row in rows) for name in parts}
    return {
        "samples_per_second": BATCH * len(rows) / sum(sum(row[f"perf/{n}_seconds"] for n in parts) for row in rows),
        "seconds": seconds,
    }


def run_trl(run: Path, work: Path) -> dict[str, Any]:
    """TRL's trainer on the same prompts."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from llmtrain.config.loader import load_stage_config
    from llmtrain.posttraining.chat import load_chat_tokenizer
    from llmtrain.posttraining.models import load_causal_model
    from llmtrain.posttraining.ppo import encode_policy_data
    from llmtrain.stages.stage_inputs import fill_in

    section = fill_in(load_stage_config([run / "sft" / "config.yaml"]).config).ppo
    assert section is not None
    chat = load_chat_tokenizer(run / "sft" / "model")
    data = encode_policy_data(section, chat, load_causal_model(run / "sft" / "model"), 0)
    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Notes the end of each rollout."""

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())

    chat.tokenizer.padding_side = "left"
    arguments = PPOConfig(
        output_dir=str(work),
        per_device_train_batch_size=MICRO,
        gradient_accumulation_steps=BATCH // MICRO,
        total_episodes=ROLLOUTS * BATCH,
        num_ppo_epochs=EPOCHS,
        num_mini_batches=1,
        local_rollout_forward_batch_size=MICRO,
        response_length=TOKENS,
        temperature=1.0,
        stop_token="eos",
        learning_rate=section.learning_rate,
        num_sample_generations=0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )

    def load_judge() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(run / "reward" / "model")

    rows = Dataset.from_dict({"input_ids": [ids for ids, _ in data.train]})
    trainer = PPOTrainer(
        args=arguments,
        processing_class=chat.tokenizer,
        model=AutoModelForCausalLM.from_pretrained(run / "sft" / "model"),
        ref_model=AutoModelForCausalLM.from_pretrained(run / "sft" / "model"),
        reward_model=load_judge(),
        value_model=load_judge(),
        train_dataset=rows,
        eval_dataset=rows.select(range(64)),
        callbacks=[Clock()],
    )
    trainer.train()
    return {"samples_per_second": BATCH * (len(ends) - 2) / (ends[-1] - ends[1])}


def start(side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One side in a process of its own."""
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, "-m", "tests.benchmarks.bench_ppo", "--side", side, "--run", str(arguments.run)]
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
        result = subprocess.run(
            [*command, "--work", work], env=environment, capture_output=True, text=True, check=False
        )
    if result.returncode:
        raise RuntimeError(f"{side} failed:\n{result.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file of the result")
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run = {"llmtrain": run_llmtrain, "trl": run_trl}[arguments.side]
        sys.stdout.write(json.dumps(run(arguments.run.absolute(), arguments.work)) + "\n")
        return
    rounds = [{side: start(side, arguments) for side in SIDES} for _ in range(arguments.rounds)]
    ratios = [row["llmtrain"]["samples_per_second"] / row["trl"]["samples_per_second"] for row in rounds]
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    result = {
        "command": f"python -m tests.benchmarks.bench_ppo --rounds {arguments.rounds} --threads {arguments.threads}",
        "commit": commit,
        "machine": describe_machine() | {"threads": arguments.threads, "load_average": os.getloadavg()[0]},
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")},
        "rounds": rounds,
        "llmtrain_over_trl": statistics.median(ratios),
        "llmtrain_over_trl_lowest_and_highest": [min(ratios), max(ratios)],
    }
    text = json.dumps(result, indent=1) + "\n"
    if arguments.output:
        arguments.output.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
