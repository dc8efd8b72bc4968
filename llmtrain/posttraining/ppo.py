"""Reinforcement learning from a reward: models, prompts, trainer, and what held-out prompts say before and after."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from llmtrain.config.ppo import ModelReward, PpoConfig
from llmtrain.conversations.records import Prompt
from llmtrain.errors import DataError
from llmtrain.posttraining.answers import (
    Answer,
    answer_prompts,
    as_answered,
    describe_answers,
    encode_prompts,
    show_prompt,
)
from llmtrain.posttraining.callback import StageCallback, quieten
from llmtrain.posttraining.chat import ChatTokenizer, load_chat_tokenizer
from llmtrain.posttraining.context import VALUE_MODEL, StageContext, gather_all
from llmtrain.posttraining.finish import save_trained
from llmtrain.posttraining.models import load_causal_model, load_reward_model, start_reward_model
from llmtrain.posttraining.policy_and_value import compute_logprobs, join_rows
from llmtrain.posttraining.records import SplitRecords, read_split_prompts
from llmtrain.posttraining.rewards import Answered, Rewards, load_function
from llmtrain.posttraining.sft import start_or_resume
from llmtrain.posttraining.statistics import describe_difference, describe_wins
from llmtrain.posttraining.trainer_arguments import build_arguments, count_accumulation


@dataclass
class PolicyData:
    """Prompts of a stage, as ids."""

    records: SplitRecords[Prompt]
    train: list[tuple[list[int], str]]
    """Ids, and the text that functions are given."""
    held_out: list[Prompt]
    held_out_rows: list[list[int]]
    left_out: dict[str, int]


@dataclass
class HeldOut:
    """What the policy answers to held-out prompts, and what that is worth, at each evaluation."""

    section: PpoConfig
    chat: ChatTokenizer
    data: PolicyData
    rewards: Rewards
    gold: Callable[[Answered], torch.Tensor] | None
    reference: Any
    context: StageContext
    history: list[dict[str, Any]] = field(default_factory=list)
    first: dict[str, list[float]] = field(default_factory=dict)
    """Scores of the fine-tuned model, by measure and prompt."""
    last: dict[str, list[float]] = field(default_factory=dict)
    """Scores at the last evaluation."""

    def evaluate(self, policy: Any, step: int) -> dict[str, float]:
        """Answer, score, and write the table of samples; all ranks call it and get the same numbers."""
        answers = answer_prompts(
            policy,
            self.chat,
            self.data.held_out,
            self.data.held_out_rows,
            self.section.generation,
            self.context,
            self.section.micro_batch_size,
        )
        answered = as_answered(answers)
        scores = self.rewards.score(answered)
        measures = {f"score_{name}": values.tolist() for name, values in scores.items()}
        measures["reward"] = self.rewards.add(scores).tolist()
        if self.gold is not None:
            measures["gold"] = self.gold(answered).tolist()
        kl = self._measure_kl(policy, answers)
        self.last = measures
        self.first = self.first or measures
        described = describe_answers(answers, measures)
        self.history.append({"step": step, "kl": sum(kl) / len(kl), **described})
        self._write_samples(step, answers, measures, kl)
        flat = {name: value["mean"] if isinstance(value, dict) else value for name, value in described.items()}
        metrics = {f"validation/{name}": float(value) for name, value in flat.items()}
        metrics["validation/kl"] = sum(kl) / len(kl)
        name = "gold" if self.gold is not None else "reward"
        metrics["validation/win_rate"] = describe_wins(measures[name], self.first[name])["win_rate"]
        return metrics

    def _measure_kl(self, policy: Any, answers: Sequence[Answer]) -> list[float]:
        """Log-probability of each answer under the policy, less that under the reference."""
        ranks, rank, size = self.context.world.world_size, self.context.world.rank, self.section.micro_batch_size
        mine: list[tuple[int, float]] = []
        places = list(range(rank, len(answers), ranks))
        for start in range(0, len(places), size):
            chosen = [answers[place] for place in places[start : start + size]]
            prompts = [answer.ids[: len(answer.ids) - answer.tokens] for answer in chosen]
            responses = [answer.ids[len(answer.ids) - answer.tokens :] for answer in chosen]
            rows = join_rows(prompts, responses, self.chat.pad_id, self.context.device)
            mask = torch.tensor(
                [[1.0] * len(row) + [0.0] * (rows.response_tokens - len(row)) for row in responses],
                device=self.context.device,
            )
            with torch.no_grad():
                temperature = self.section.generation.temperature
                ours = compute_logprobs(policy, rows, temperature)[0]
                theirs = compute_logprobs(self.reference, rows, temperature)[0]
            sums = ((ours - theirs) * mask).sum(1).tolist()
            mine += zip(places[start : start + size], sums, strict=True)
        return [value for _, value in sorted(gather_all(mine))]

    def _write_samples(
        self, step: int, answers: Sequence[Answer], measures: dict[str, list[float]], kl: Sequence[float]
    ) -> None:
        if self.context.writer is None:
            return
        for i, answer in enumerate(answers[: self.section.sample_table_rows]):
            fields = {name: round(values[i], 4) for name, values in measures.items()}
            self.context.writer.log_sample(step, answer.prompt, answer.response, **fields, kl=round(kl[i], 4))

    def summarize(self) -> dict[str, Any]:
        """Before and after, and what the difference is worth."""
        before, after = self.history[0], self.history[-1]
        compared = {
            name: {
                "difference": describe_difference(self.last[name], self.first[name]),
                "wins": describe_wins(self.last[name], self.first[name]),
            }
            for name in self.last
        }
        return {"before": before, "after": after, "against_sft": compared, "history": self.history}


def train_ppo(context: StageContext, section: PpoConfig) -> dict[str, Any] | None:
    """Train, save the policy and the value model.

    Returns:
        The summary, on every rank; None when a signal stopped it after saving.
    """
    chat = load_chat_tokenizer(context.parents["model"])
    policy = load_causal_model(context.parents["model"])
    data = encode_policy_data(section, chat, policy)
    folders = {role.removeprefix("reward "): path for role, path in context.parents.items() if role != "model"}
    rewards = Rewards(section.rewards, folders, chat, context.device, section.micro_batch_size)
    gold = load_function(section.gold, "ppo.gold") if section.gold is not None else None
    reference = load_causal_model(context.parents["model"]).to(context.device).eval()
    held_out = HeldOut(section, chat, data, rewards, gold, reference, context)
    if section.algorithm == "rloo":
        from llmtrain.posttraining.rloo import train_rloo

        return train_rloo(context, section, policy, held_out)
    return _train(context, section, policy, held_out)


def _train(context: StageContext, section: PpoConfig, policy: Any, held_out: HeldOut) -> dict[str, Any] | None:
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig

    from llmtrain.posttraining.ppo_trainer import PpoTrainer

    chat, data = held_out.chat, held_out.data
    accumulation = announce_accelerator(section, context)
    shared = build_arguments("ppo", section, context.checkpoints, context.config.run.seed, context.world)
    arguments = PPOConfig(
        **shared | {"gradient_accumulation_steps": accumulation},
        total_episodes=section.train_steps * section.global_batch_size // section.mini_batches,
        num_mini_batches=1,
        num_sample_generations=0,
    )
    trainer: Any = None

    def evaluate(step: int) -> dict[str, float]:
        with trainer.whole_models() as models:
            return held_out.evaluate(models.policy, step)

    callback = StageCallback(context, section, evaluate)
    rows = Dataset.from_dict({"input_ids": [ids for ids, _ in data.train]})
    trainer = PpoTrainer(
        context,
        section,
        chat,
        held_out.rewards,
        data.train,
        args=arguments,
        model=policy,
        ref_model=held_out.reference,
        value_model=build_value_model(context, section, chat),
        train_dataset=rows,
        eval_dataset=rows.select([0]),
        callbacks=[callback],
    )
    quieten(trainer)
    resume = start_or_resume(context)
    trainer.train(resume_from_checkpoint=resume)
    if trainer.state.global_step < section.train_steps and trainer.guard is None:
        return None
    callback.evaluate(trainer.state.global_step)
    weights = trainer.accelerator.get_state_dict(trainer.model) or {}
    save_trained(context, policy, _take(weights, "policy."), chat, context.model_folder)
    value_model = trainer.accelerator.unwrap_model(trainer.model).value_model
    save_trained(context, value_model, _take(weights, "value_model."), chat, context.folder / VALUE_MODEL)
    return {
        "algorithm": "ppo",
        "steps": trainer.state.global_step,
        "stopped_by": trainer.guard,
        "kl_coefficient": trainer.kl_coefficient,
        "records": data.records.describe(),
        "left_out_prompts": data.left_out,
        **held_out.summarize(),
    }


def encode_policy_data(section: PpoConfig, chat: ChatTokenizer, policy: Any) -> PolicyData:
    """Prompts that leave room for a response.

    Raises:
        DataError: none is left, or none is held out.
    """
    records = read_split_prompts(section.prompts, section.validation_fraction)
    room = policy.config.max_position_embeddings - section.generation.max_new_tokens
    kept, rows, left_out = encode_prompts(chat, records.train, room)
    held_out, held_out_rows, left_out_of_held = encode_prompts(chat, records.held_out, room)
    if not kept or not held_out:
        which = "train" if not kept else "evaluate"
        reasons = left_out | left_out_of_held or "none was read"
        raise DataError(
            f"ppo.prompts: no prompt is left to {which} on: {reasons}. A prompt may have {room} tokens: the model "
            f"reads {policy.config.max_position_embeddings}, and ppo.generation.max_new_tokens is "
            f"{section.generation.max_new_tokens}."
        )
    train = [(ids, show_prompt(prompt)) for ids, prompt in zip(rows, kept, strict=True)]
    limit = section.evaluation_prompts
    return PolicyData(records, train, held_out[:limit], held_out_rows[:limit], left_out)


def build_value_model(context: StageContext, section: PpoConfig, chat: ChatTokenizer) -> Any:
    """The critic: a copy of the first reward model, or a new head on the policy where there is none."""
    name = next((name for name, term in section.rewards.items() if isinstance(term, ModelReward)), None)
    if name is not None:
        return load_reward_model(context.parents[f"reward {name}"])
    return start_reward_model(context.parents["model"], chat.pad_id, context.config.run.seed)


def announce_accelerator(section: PpoConfig, context: StageContext) -> int:
    """Tell accelerate, through the environment, what TRL's PPOTrainer does not: ZeRO and the number format.

    Returns:
        Micro-batches of one optimizer step.
    """
    accumulation = count_accumulation("ppo", section, context.world.world_size) // section.mini_batches
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if section.compute_dtype == "bfloat16" else "no"
    if section.zero_stage:
        os.environ |= {
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(section.zero_stage),
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": str(accumulation),
            "ACCELERATE_GRADIENT_CLIPPING": str(section.max_grad_norm),
            "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
        }
    return accumulation


def _take(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
