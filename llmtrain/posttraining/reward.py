"""The reward model: TRL's RewardTrainer on encoded pairs, and what the held-out pairs say about it.

pairs of files + pairs that the fine-tuned model answers itself -> tokens -> Bradley-Terry loss -> model
held-out pairs -> accuracy, calibration, length;  answers of the fine-tuned model -> offset
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from llmtrain.config.reward import GenerationConfig, RewardConfig
from llmtrain.conversations.records import Message, Preference
from llmtrain.conversations.split import find_shared_prompts
from llmtrain.errors import ConfigError, DataError
from llmtrain.posttraining.batch_sizes import fill_up
from llmtrain.posttraining.callback import StageCallback, WithoutModelCard, quieten
from llmtrain.posttraining.chat import ChatTokenizer, load_chat_tokenizer
from llmtrain.posttraining.context import StageContext
from llmtrain.posttraining.finish import save_trained, take_weights
from llmtrain.posttraining.models import check_vocabulary, load_causal_model, start_reward_model
from llmtrain.posttraining.pairs import EncodedPairs, encode_pairs, sample_pairs
from llmtrain.posttraining.records import SplitRecords, read_split_preferences, read_split_prompts
from llmtrain.posttraining.reward_offset import compute_offset, draw_own_answers
from llmtrain.posttraining.reward_report import describe_judgements
from llmtrain.posttraining.rewards import OFFSET, score_on_all_ranks
from llmtrain.posttraining.start import start_or_resume
from llmtrain.posttraining.trained_prompts import leave_out_trained, read_trained
from llmtrain.posttraining.trainer_arguments import build_arguments, build_deepspeed, find_max_length


def train_reward(context: StageContext, section: RewardConfig) -> dict[str, Any] | None:
    """Train, measure, save the model with its offset.

    Returns:
        The summary, on every rank; None when a signal stopped it after saving.
    """
    from trl.models.utils import unwrap_model_for_generation

    chat = load_chat_tokenizer(context.parents["model"])
    model = start_reward_model(context.parents["model"], chat.pad_id, context.config.run.seed)
    check_vocabulary(model, chat)
    max_length = find_max_length("reward", section.max_length, model)
    records, sampled_left_out, sources = collect_pairs(context, section, chat)
    leave_out_trained(records, read_trained(context.parents), "reward")
    train = encode_pairs(chat, records.train, max_length, section.long_examples)
    held_out = encode_pairs(chat, records.held_out, max_length, section.long_examples, len(train.chosen))
    generation = section.sampled.generation if section.sampled is not None else GenerationConfig()
    own = draw_own_answers(context, chat, records.train, generation, section.micro_batch_size)
    leaked = find_shared_prompts(records.train, records.held_out)

    trainer: Any = None

    def measure() -> dict[str, Any]:
        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as whole:
            scores = judge_pairs(whole, held_out, chat.pad_id, section.micro_batch_size, context)
        return describe_judgements(held_out, *scores)

    callback = StageCallback(context, section, lambda step: list_metrics(measure()))
    trainer, repeated = _build_trainer(context, section, chat, model, train, max_length, callback)
    trainer.train(resume_from_checkpoint=start_or_resume(context))
    if trainer.state.global_step < trainer.state.max_steps:
        return None
    report = measure()
    callback.record(trainer.state.global_step, list_metrics(report))
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as whole:
        offset = compute_offset(whole, own or train.chosen, chat.pad_id, section.micro_batch_size, context)
    model.config.update({OFFSET: offset})
    weights = take_weights(trainer.accelerator, trainer.model_wrapped)
    save_trained(context, model, weights, chat, context.model_folder, [pair.prompt for pair in records.train])
    return {
        "steps": trainer.state.global_step,
        "records": records.describe(),
        "train_pairs": train.describe() | {"repeated_to_fill_the_last_batch": repeated},
        "held_out_pairs": held_out.describe(),
        "sampled_left_out": dict(sampled_left_out),
        "held_out_prompts_by_source": dict(sources),
        "prompts_in_both_parts": len(leaked),
        "reward_offset": offset,
        "reward_offset_of": {"own_answers" if own else "chosen_answers": len(own or train.chosen)},
        "held_out": report,
    }


def list_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """What of a report of `describe_judgements` is followed over the steps."""
    return {
        "validation/pair_accuracy": report["accuracy"]["value"],
        "validation/loss": report["loss"],
        "validation/reward_length_correlation": report["reward_length_correlation"],
        "validation/calibration_error": report["calibration"]["expected_error"],
    }


def _build_trainer(
    context: StageContext,
    section: RewardConfig,
    chat: ChatTokenizer,
    model: Any,
    train: EncodedPairs,
    max_length: int,
    callback: StageCallback,
) -> tuple[Any, int]:
    """TRL's trainer, and how many pairs are there twice to fill the last batch."""
    from datasets import Dataset
    from trl import RewardConfig as Arguments
    from trl import RewardTrainer

    class Trainer(WithoutModelCard, RewardTrainer):  # type: ignore[misc]
        """TRL's, without a page about itself in every checkpoint."""

    arguments = Arguments(
        **build_arguments("reward", section, context.checkpoints, context.config.run.seed, context.world),
        deepspeed=build_deepspeed("reward", section, context.world.world_size),
        num_train_epochs=section.train_epochs,
        max_length=max_length,
        center_rewards_coefficient=section.center_rewards_coefficient or None,
    )
    # The loss of a difference of scores; accelerate casts what a model gives in bfloat16, DeepSpeed does not.
    model.score.register_forward_hook(lambda module, inputs, scores: scores.float())
    rows = Dataset.from_dict({"chosen_ids": train.chosen, "rejected_ids": train.rejected})
    rows, repeated = fill_up(rows, section.global_batch_size)
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows, processing_class=chat.tokenizer, callbacks=[callback]
    )
    quieten(trainer)
    return trainer, repeated


def collect_pairs(
    context: StageContext, section: RewardConfig, chat: ChatTokenizer
) -> tuple[SplitRecords[Preference], Counter[str], Counter[str]]:
    """Pairs of files, and those that the fine-tuned model answers itself.

    Returns:
        Pairs; reason -> count of drawn ones that are none; source -> count of held-out prompts, those of drawn pairs
        under the source of `sft.data`.

    Raises:
        ConfigError: there is neither, or pairs are to be drawn without prompts.
        DataError: none is held out.
    """
    records: SplitRecords[Preference] = SplitRecords()
    left_out, names = Counter[str](), dict[tuple[Message, ...], str]()
    if section.data:
        records = read_split_preferences(section.data, section.validation_fraction)
    elif section.sampled is None:
        raise ConfigError("reward: no pairs. Name files in reward.data, draw some with reward.sampled, or make some.")
    if section.sampled is not None:
        sft = context.config.sft
        if sft is None or not sft.data:
            raise ConfigError("reward.sampled: draws answers to the prompts of sft.data, and there are none.")
        # The same prompts are held out as in every other stage.
        prompts = read_split_prompts(sft.data, section.validation_fraction)
        names = {prompt.messages: prompt.source for prompt in prompts.held_out}
        policy = load_causal_model(context.parents["model"]).to(context.device)
        count = section.sampled.pairs
        # Judged by what is right: turned labels would hide how good a model is.
        right = section.sampled.model_copy(update={"label_noise": 0.0})
        for part, rows, sampled, share in (
            (records.train, prompts.train, section.sampled, count),
            (records.held_out, prompts.held_out, right, math.ceil(count * section.validation_fraction)),
        ):
            pairs, reasons = sample_pairs(policy, chat, rows, sampled, share, context, section.micro_batch_size)
            part += pairs
            left_out += reasons
    if not records.held_out:
        raise DataError(
            "reward: no pair is held out, so nothing could be said about the model. Raise reward.validation_fraction."
        )
    asked = {pair.prompt: names.get(pair.prompt, pair.source) for pair in records.held_out}
    return records, left_out, Counter(asked.values())


def judge_pairs(
    model: Any, pairs: EncodedPairs, pad_id: int, batch_size: int, context: StageContext
) -> tuple[list[float], list[float]]:
    """Scores of the chosen and of the rejected answers; all ranks call it and get all.

    Args:
        model: whole on this rank.
        pairs: to judge.
        pad_id: fills up.
        batch_size: sequences of one forward pass.
        context: ranks.
    """
    chosen, rejected = (
        score_on_all_ranks(model, side, pad_id, batch_size, context) for side in (pairs.chosen, pairs.rejected)
    )
    return chosen, rejected
