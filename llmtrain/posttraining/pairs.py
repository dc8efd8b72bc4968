"""Pairs of answers -> token ids; answers of the fine-tuned model itself, labelled by a function."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from llmtrain.config.reward import SampledPairsConfig
from llmtrain.conversations.records import Message, Preference, Prompt
from llmtrain.data.permutation import derive_key
from llmtrain.errors import DataError
from llmtrain.posttraining.answers import (
    Answer,
    as_answered,
    describe_reasons,
    encode_prompts,
    find_room,
    mix_prompts,
    show_prompt,
    to_answers,
)
from llmtrain.posttraining.chat import ChatTokenizer, naming
from llmtrain.posttraining.context import StageContext, gather_all
from llmtrain.posttraining.generation import draw_responses
from llmtrain.posttraining.records import describe_empty
from llmtrain.posttraining.rewards import load_function

SAMPLED = "sampled"
_PAIRS, _NOISE = 11, 12


@dataclass
class EncodedPairs:
    """Pairs as token ids, prompt and answer together."""

    chosen: list[list[int]] = field(default_factory=list)
    rejected: list[list[int]] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def describe(self) -> dict[str, Any]:
        """For the summary."""
        longer = sum(len(a) > len(b) for a, b in zip(self.chosen, self.rejected, strict=True))
        return {
            "pairs": len(self.chosen),
            "by_source": dict(Counter(self.sources)),
            "left_out": dict(sorted(self.left_out.items())),
            "chosen_longer_fraction": longer / max(1, len(self.chosen)),
        }


@dataclass(frozen=True)
class SampledPreference(Preference):
    """A pair of drawn answers with their ids: one that did not end is not shown as if it had."""

    chosen_ids: tuple[int, ...]
    """Prompt and answer."""
    rejected_ids: tuple[int, ...]
    """Prompt and answer."""


def encode_pairs(
    chat: ChatTokenizer,
    pairs: Sequence[Preference],
    max_length: int,
    long_examples: Literal["leave_out", "refuse"],
    training: int | None = None,
) -> EncodedPairs:
    """Encode by the chat template; what is left out is counted.

    Args:
        chat: the tokenizer.
        pairs: records.
        max_length: tokens of prompt and answer at most.
        long_examples: what becomes of longer ones.
        training: for held-out pairs, how many there are to train on; for messages.

    Raises:
        DataError: a pair is too long and that is to be refused, or nothing is left.
    """
    result = EncodedPairs()
    for pair in pairs:
        answers = [(*pair.prompt, Message("assistant", text)) for text in (pair.chosen, pair.rejected)]
        special = chat.find_special(answers[0]) or chat.find_special(answers[1])
        if special is not None:
            result.left_out[f"spells the special token {special}"] += 1
            continue
        if isinstance(pair, SampledPreference):
            chosen, rejected = list(pair.chosen_ids), list(pair.rejected_ids)
        else:
            with naming(pair):
                chosen, rejected = (chat.encode(messages).input_ids for messages in answers)
        longest = max(len(chosen), len(rejected))
        if longest > max_length:
            if long_examples == "refuse":
                raise DataError(
                    f"{pair.source}: pair {pair.id} has {longest:,} tokens, more than {max_length:,}. Raise "
                    "reward.max_length, or set reward.long_examples to leave_out."
                )
            result.left_out[f"longer than {max_length} tokens"] += 1
            continue
        if chosen == rejected:
            result.left_out["the same tokens"] += 1
            continue
        result.chosen.append(chosen)
        result.rejected.append(rejected)
        result.prompt_tokens.append(len(chat.encode_prompt(pair.prompt)))
        result.sources.append(pair.source)
    if not result.chosen:
        raise DataError(describe_empty("reward", "pair", len(pairs), result.left_out, training))
    return result


def sample_pairs(
    model: Any,
    chat: ChatTokenizer,
    prompts: Sequence[Prompt],
    config: SampledPairsConfig,
    count: int,
    context: StageContext,
    batch_size: int,
) -> tuple[list[Preference], Counter[str]]:
    """Draw two answers to each prompt, label them; all ranks call it and get all pairs.

    Args:
        model: the fine-tuned model, whole on this rank.
        chat: its tokenizer.
        prompts: to answer, as often as needed.
        config: how to draw and to label.
        count: pairs to draw.
        context: ranks and seed.
        batch_size: answers drawn at a time.

    Returns:
        Pairs, and reason -> count of those that are none and of prompts that were not asked.
    """
    label = load_function(config.label, "reward.sampled.label")
    room = find_room("reward.sampled", config.generation, model)
    kept, rows, unasked = encode_prompts(chat, prompts, room)
    if not kept:
        raise DataError(
            f"reward.sampled: no prompt of sft.data is left to answer ({describe_reasons(unasked)}). A prompt may have "
            f"{room} tokens: the model reads {model.config.max_position_embeddings}, and "
            f"reward.sampled.generation.max_new_tokens is {config.generation.max_new_tokens}."
        )
    kept, rows = mix_prompts(kept, rows, context.config.run.seed)
    seed, mine = context.config.run.seed, range(context.world.rank, count, context.world.world_size)
    drawn: list[tuple[int, tuple[Answer, Answer], tuple[float, float]]] = []
    for start in range(0, len(mine), batch_size):
        places = list(mine[start : start + batch_size])
        sides = []
        for side in (0, 1):
            keys = [derive_key(seed, _PAIRS, place, side) for place in places]
            chosen = [rows[place % len(rows)] for place in places]
            texts = [show_prompt(kept[place % len(kept)]) for place in places]
            rollout = draw_responses(model, chosen, keys, config.generation, chat.eos_id, chat.pad_id)
            answers = to_answers(chat, places, texts, chosen, rollout)
            sides.append((answers, label(as_answered(answers))))
        (first, first_scores), (second, second_scores) = sides
        drawn += [
            (place, (first[i], second[i]), (float(first_scores[i]), float(second_scores[i])))
            for i, place in enumerate(places)
        ]
    pairs, left_out = _label(sorted(gather_all(drawn)), kept, config.label_noise, seed)
    for reason, number in unasked.items():
        left_out[f"prompt: {reason}"] += number
    return pairs, left_out


def _label(
    drawn: list[tuple[int, tuple[Answer, Answer], tuple[float, float]]],
    prompts: Sequence[Prompt],
    noise: float,
    seed: int,
) -> tuple[list[Preference], Counter[str]]:
    pairs: list[Preference] = []
    left_out = Counter[str]()
    for place, (first, second), (one, other) in drawn:
        if one == other:
            left_out["equal labels"] += 1
            continue
        if not first.response.strip() or not second.response.strip():
            left_out["an answer without words"] += 1
            continue
        turned = np.random.Generator(np.random.Philox(key=derive_key(seed, _NOISE, place))).random() < noise
        chosen, rejected = (first, second) if (one > other) != turned else (second, first)
        prompt = prompts[place % len(prompts)]
        texts, ids = (chosen.response, rejected.response), (chosen.ids, rejected.ids)
        pairs.append(SampledPreference(f"{SAMPLED}-{place}", SAMPLED, prompt.messages, *texts, *ids))
    return pairs, left_out
