"""A model's answers to held-out prompts: what all stages are compared by.

The same prompts and the same random numbers every time, so two models differ by what they say, not by luck.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmtrain.config.reward import GenerationConfig
from llmtrain.conversations.records import Prompt
from llmtrain.data.permutation import derive_key
from llmtrain.errors import CheckpointError, ConfigError
from llmtrain.posttraining.chat import ChatTokenizer, naming
from llmtrain.posttraining.context import StageContext, gather_all
from llmtrain.posttraining.generation import Rollout, draw_responses
from llmtrain.posttraining.rewards import Answered
from llmtrain.posttraining.statistics import count_distinct, describe_mean

_EVALUATION_KEY, _ORDER_KEY = 0xE7A1, 0x0DE4


@dataclass(frozen=True)
class Answer:
    """One response to a prompt."""

    place: int
    """Of the prompt."""
    prompt: str
    response: str
    ids: tuple[int, ...]
    """Prompt and response."""
    tokens: int
    """Of the response."""
    has_ended: bool


def find_room(name: str, generation: GenerationConfig, model: Any) -> int:
    """Tokens of a prompt at most, so that a response still fits.

    Args:
        name: of the section that holds `generation`, for messages.
        generation: how long a response may be.
        model: of `transformers`.

    Raises:
        CheckpointError: the model does not say how many tokens it reads.
        ConfigError: a response alone would fill it.
    """
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        raise CheckpointError(
            f"{type(model).__name__}: its config.json does not say how many tokens it reads (max_position_embeddings), "
            "so no answers can be drawn from it here."
        )
    if generation.max_new_tokens >= positions:
        raise ConfigError(
            f"{name}.generation.max_new_tokens = {generation.max_new_tokens}: the model reads {positions} tokens, "
            f"prompt and response together. Choose fewer than {positions}, less the tokens of a prompt."
        )
    return positions - generation.max_new_tokens


def describe_reasons(left_out: Counter[str]) -> str:
    """Reasons with their counts, for messages."""
    return ", ".join(f"{reason}: {count}" for reason, count in left_out.items()) or "none was read"


def encode_prompts(
    chat: ChatTokenizer, prompts: Sequence[Prompt], max_tokens: int
) -> tuple[list[Prompt], list[list[int]], Counter[str]]:
    """Prompts as ids.

    Returns:
        Those that fit, their ids, and reason -> count of the others.
    """
    kept, rows, left_out = [], [], Counter[str]()
    for prompt in prompts:
        special = chat.find_special(prompt.messages)
        with naming(prompt):
            ids = chat.encode_prompt(prompt.messages) if special is None else []
        if special is not None:
            reason = f"spells the special token {special}"
        elif len(ids) > max_tokens:
            reason = f"longer than {max_tokens} tokens"
        else:
            kept.append(prompt)
            rows.append(ids)
            continue
        left_out[reason] += 1
    return kept, rows, left_out


def mix_prompts(
    prompts: Sequence[Prompt], rows: Sequence[list[int]], seed: int
) -> tuple[list[Prompt], list[list[int]]]:
    """Prompts and their ids in an order that follows from the seed, so that the first ones are of all sources.

    Args:
        prompts: in the order of files.
        rows: their ids.
        seed: of the run.
    """
    generator = np.random.Generator(np.random.Philox(key=derive_key(seed, _ORDER_KEY)))
    order = generator.permutation(len(prompts)).tolist()
    return [prompts[i] for i in order], [rows[i] for i in order]


def to_answers(
    chat: ChatTokenizer, places: Sequence[int], texts: Sequence[str], prompts: Sequence[Sequence[int]], rollout: Rollout
) -> list[Answer]:
    """Rows of a rollout as text."""
    lengths = rollout.mask_BR.sum(1).tolist()
    responses = rollout.response_ids_BR.tolist()
    answers = []
    for place, text, prompt, row, length in zip(places, texts, prompts, responses, lengths, strict=True):
        ids = row[:length]
        answers.append(
            Answer(
                place, text, chat.decode(ids), (*prompt, *ids), length, has_ended=bool(ids) and ids[-1] == chat.eos_id
            )
        )
    return answers


def answer_prompts(
    model: Any,
    chat: ChatTokenizer,
    prompts: Sequence[Prompt],
    rows: Sequence[Sequence[int]],
    generation: GenerationConfig,
    context: StageContext,
    batch_size: int,
) -> list[Answer]:
    """Answers of a model to prompts, shared among the ranks; all ranks call it and get all answers.

    Args:
        model: whole on this rank.
        chat: its tokenizer.
        prompts: to answer.
        rows: their ids.
        generation: how.
        context: ranks and seed.
        batch_size: answers drawn at a time.
    """
    mine = list(range(context.world.rank, len(prompts), context.world.world_size))
    mine.sort(key=lambda i: len(rows[i]))
    answers: list[Answer] = []
    for start in range(0, len(mine), batch_size):
        places = mine[start : start + batch_size]
        keys = [derive_key(context.config.run.seed, _EVALUATION_KEY, place) for place in places]
        chosen = [rows[place] for place in places]
        rollout = draw_responses(model, chosen, keys, generation, chat.eos_id, chat.pad_id)
        answers += to_answers(chat, places, [show_prompt(prompts[place]) for place in places], chosen, rollout)
    return sorted(gather_all(answers), key=lambda answer: answer.place)


def show_prompt(prompt: Prompt) -> str:
    """What a function of rewards is given: the last message of the user, after the earlier ones if there are any."""
    return "\n\n".join(message.content for message in prompt.messages)


def as_answered(answers: Sequence[Answer]) -> Answered:
    """What rewards are given."""
    return Answered(
        [answer.prompt for answer in answers],
        [answer.response for answer in answers],
        [list(answer.ids) for answer in answers],
    )


def describe_answers(answers: Sequence[Answer], measures: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Length, ends and variety, and the given measures with 95 % intervals.

    Args:
        answers: at least one.
        measures: name -> a score for each answer.
    """
    texts = [answer.response for answer in answers]
    return {
        **{name: describe_mean(scores) for name, scores in measures.items()},
        "response_tokens": sum(answer.tokens for answer in answers) / len(answers),
        "ended_fraction": sum(answer.has_ended for answer in answers) / len(answers),
        **{f"distinct_{n}": count_distinct(texts, n) for n in (1, 2, 3)},
        "distinct_responses": len(set(texts)) / len(texts),
    }
