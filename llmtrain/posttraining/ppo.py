"""Reinforcement learning from a reward: models, prompts, trainer, and what held-out prompts say before and after."""

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Set
from pathlib import Path
from typing import Any

from llmtrain.config.ppo import GuardsConfig, ModelReward, PpoConfig
from llmtrain.errors import DataError
from llmtrain.posttraining.answers import describe_reasons, encode_prompts, find_room, mix_prompts, show_prompt
from llmtrain.posttraining.callback import StageCallback, quieten
from llmtrain.posttraining.chat import ChatTokenizer, load_chat_tokenizer
from llmtrain.posttraining.context import BEST, VALUE_MODEL, StageContext
from llmtrain.posttraining.finish import save_trained, select_weights, take_weights
from llmtrain.posttraining.held_out import HeldOut, PolicyData
from llmtrain.posttraining.models import check_vocabulary, load_causal_model, load_reward_model, start_reward_model
from llmtrain.posttraining.records import read_split_prompts
from llmtrain.posttraining.rewards import Rewards, load_function
from llmtrain.posttraining.start import start_or_resume
from llmtrain.posttraining.trained_prompts import leave_out_trained, read_trained
from llmtrain.posttraining.trainer_arguments import build_arguments, build_deepspeed

logger = logging.getLogger(__name__)


def train_ppo(context: StageContext, section: PpoConfig) -> dict[str, Any] | None:
    """Train, save the policy and the value model.

    Returns:
        The summary, on every rank; None when a signal stopped it after saving.
    """
    chat = load_chat_tokenizer(context.parents["model"])
    policy = load_causal_model(context.parents["model"])
    check_vocabulary(policy, chat)
    data = encode_policy_data(section, chat, policy, context.config.run.seed, read_trained(context.parents))
    folders = {role.removeprefix("reward "): path for role, path in context.parents.items() if role != "model"}
    rewards = Rewards(section.rewards, folders, chat, context.device, section.micro_batch_size)
    gold = load_function(section.gold, "ppo.gold") if section.gold is not None else None
    reference = load_causal_model(context.parents["model"]).to(context.device).eval()
    held_out = HeldOut(section, chat, data, rewards, gold, reference, context)
    return _train(context, section, policy, held_out)


def _train(context: StageContext, section: PpoConfig, policy: Any, held_out: HeldOut) -> dict[str, Any] | None:
    """All steps with their evaluations, from the start or a checkpoint on; then the models and the summary."""
    trainer: Any = None

    def evaluate(step: int) -> dict[str, float]:
        with trainer.whole_models() as models:
            metrics: dict[str, float] = held_out.evaluate(models.policy, step)
        trainer.base_response_tokens = held_out.history[0]["response_tokens"]
        if section.guards != GuardsConfig() and held_out.is_best and trainer.guard is None:
            weights = take_weights(trainer.accelerator, trainer.model, "policy.")
            save_trained(context, policy, weights, held_out.chat, context.folder / BEST)
        return metrics

    callback = StageCallback(context, section, evaluate)
    trainer = _build_trainer(context, section, policy, held_out, callback)
    resume = start_or_resume(context)
    if resume is not None:
        held_out.resume(int(resume.rpartition("-")[2]))
        trainer.base_response_tokens = held_out.history[0]["response_tokens"]
    trainer.train(resume_from_checkpoint=resume)
    if trainer.state.global_step < section.train_steps and trainer.guard is None:
        return None
    if trainer.guard is None:
        callback.evaluate(trainer.state.global_step)
    _save_models(context, trainer, policy, held_out)
    return {
        "algorithm": section.algorithm,
        "steps": trainer.state.global_step,
        "stopped_by": trainer.guard,
        "kept_step": held_out.after["step"],
        "kl_coefficient": trainer.kl_coefficient,
        "records": held_out.data.records.describe(),
        "left_out_prompts": held_out.data.left_out,
        "held_out_prompts_by_source": dict(Counter(prompt.source for prompt in held_out.data.held_out)),
        **held_out.summarize(),
    }


def _build_trainer(
    context: StageContext, section: PpoConfig, policy: Any, held_out: HeldOut, callback: StageCallback
) -> Any:
    """Our trainer on TRL's arguments."""
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig

    from llmtrain.posttraining.ppo_trainer import PpoTrainer

    announce_zero(section, context.world.world_size)
    arguments = PPOConfig(
        **build_arguments("ppo", section, context.checkpoints, context.config.run.seed, context.world),
        total_episodes=section.train_steps * section.global_batch_size // section.mini_batches,
        num_mini_batches=1,
        num_sample_generations=0,
    )
    prompts = held_out.data.train
    rows = Dataset.from_dict({"input_ids": [ids for ids, _ in prompts]})
    trainer = PpoTrainer(
        context,
        section,
        held_out.chat,
        held_out.rewards,
        prompts,
        args=arguments,
        model=policy,
        ref_model=held_out.reference,
        value_model=build_value_model(context, section, held_out.chat),
        train_dataset=rows,
        eval_dataset=rows.select([0]),
        callbacks=[callback],
    )
    quieten(trainer)
    return trainer


def _save_models(context: StageContext, trainer: Any, policy: Any, held_out: HeldOut) -> None:
    """The value model, and the policy: of the last step, or of the best evaluation where a guard ended the run."""
    weights = take_weights(trainer.accelerator, trainer.model)
    value_model = trainer.accelerator.unwrap_model(trainer.model).value_model
    if value_model is not None:
        folder = context.folder / VALUE_MODEL
        save_trained(context, value_model, select_weights(weights, "value_model."), held_out.chat, folder)
    if trainer.guard is None:
        prompts = [prompt.messages for prompt in held_out.data.records.train]
        policy_weights = select_weights(weights, "policy.")
        save_trained(context, policy, policy_weights, held_out.chat, context.model_folder, prompts)
        return
    kept = held_out.take_best()
    context.log_event("guard", message=trainer.guard, kept_step=kept)
    logger.warning(
        "%s: %s; kept is the model of step %d%s",
        context.folder,
        trainer.guard,
        kept,
        ", the fine-tuned one" if kept == 0 else "",
    )
    copy_model(context, context.folder / BEST, context.model_folder)


def encode_policy_data(
    section: PpoConfig, chat: ChatTokenizer, policy: Any, seed: int, trained: Set[str] = frozenset()
) -> PolicyData:
    """Prompts that leave room for a response; those held out are mixed, and were not trained on before.

    Raises:
        DataError: none is left, or none is held out.
    """
    records = read_split_prompts(section.prompts, section.validation_fraction)
    leave_out_trained(records, trained, "ppo.prompts")
    room = find_room("ppo", section.generation, policy)
    kept, rows, left_out = encode_prompts(chat, records.train, room)
    held_out, held_out_rows, left_out_of_held = encode_prompts(chat, records.held_out, room)
    left_out += left_out_of_held
    if not kept or not held_out:
        which = "train" if not kept else "evaluate"
        raise DataError(
            f"ppo.prompts: no prompt is left to {which} on ({describe_reasons(left_out)}). A prompt may have "
            f"{room} tokens: the model reads {policy.config.max_position_embeddings}, and "
            f"ppo.generation.max_new_tokens is {section.generation.max_new_tokens}."
        )
    train = [(ids, show_prompt(prompt)) for ids, prompt in zip(rows, kept, strict=True)]
    held_out, held_out_rows = mix_prompts(held_out, held_out_rows, seed)
    limit = section.evaluation_prompts
    return PolicyData(records, train, held_out[:limit], held_out_rows[:limit], left_out)


def build_value_model(context: StageContext, section: PpoConfig, chat: ChatTokenizer) -> Any:
    """The critic: a copy of the first reward model, or a new head on the policy where there is none; none for RLOO."""
    name = next((name for name, term in section.rewards.items() if isinstance(term, ModelReward)), None)
    if section.algorithm == "rloo":
        return None
    if name is not None:
        return load_reward_model(context.parents[f"reward {name}"])
    return start_reward_model(context.parents["model"], chat.pad_id, context.config.run.seed)


def announce_zero(section: PpoConfig, world_size: int) -> None:
    """Tell accelerate of ZeRO through the environment: TRL's PPOTrainer hands no configuration on."""
    if (config := build_deepspeed("ppo", section, world_size)) is not None:
        os.environ |= {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": json.dumps(config)}


def copy_model(context: StageContext, source: Path, target: Path) -> None:
    """A model's folder in another place, whole or not at all; it may be done again after a kill."""
    if context.world.is_first:
        staging = target.with_name(target.name + ".tmp")
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(source, staging)
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
    context.wait_for_all()
