"""The offset of a reward model: its mean score on what the fine-tuned model answers, scored as PPO scores answers."""

from collections.abc import Sequence
from typing import Any

import torch

from llmtrain.config.reward import GenerationConfig
from llmtrain.conversations.records import Preference, Prompt
from llmtrain.posttraining.answers import answer_prompts, encode_prompts, find_room, mix_prompts
from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.context import StageContext
from llmtrain.posttraining.models import load_causal_model
from llmtrain.posttraining.rewards import score_on_all_ranks

_ANSWERS = 256


def draw_own_answers(
    context: StageContext,
    chat: ChatTokenizer,
    pairs: Sequence[Preference],
    generation: GenerationConfig,
    batch_size: int,
) -> list[list[int]]:
    """Answers of the fine-tuned model to prompts of training; all ranks call it and get all.

    Args:
        context: ranks, seed, and where that model is.
        chat: its tokenizer.
        pairs: to train on, whose prompts are answered, each once.
        generation: how; at most half of what the model reads is drawn.
        batch_size: answers drawn at a time.

    Returns:
        Prompt and response as ids, which may stop without an end; empty if no prompt leaves room for a response, or
        the model does not say how much it reads.
    """
    model = load_causal_model(context.parents["model"]).to(context.device)
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return []
    generation = generation.model_copy(update={"max_new_tokens": min(generation.max_new_tokens, positions // 2)})
    prompts = {pair.prompt: Prompt(pair.id, pair.source, pair.prompt, None) for pair in pairs}
    kept, rows, _ = encode_prompts(chat, list(prompts.values()), find_room("reward", generation, model))
    kept, rows = mix_prompts(kept, rows, context.config.run.seed)
    answers = answer_prompts(model, chat, kept[:_ANSWERS], rows[:_ANSWERS], generation, context, batch_size)
    return [list(answer.ids) for answer in answers]


def compute_offset(
    model: Any, sequences: Sequence[Sequence[int]], pad_id: int, batch_size: int, context: StageContext
) -> float:
    """Mean score; all ranks call it.

    Args:
        model: the reward model, whole on this rank.
        sequences: prompts and answers, at least one.
        pad_id: fills up.
        batch_size: sequences of one forward pass.
        context: ranks.

    Source:
        Stiennon et al. 2020, section 3.4: rewards are shifted so that such answers have mean zero.
    """
    scores = score_on_all_ranks(model, sequences, pad_id, batch_size, context)
    return float(torch.tensor(scores, dtype=torch.float64).mean())
