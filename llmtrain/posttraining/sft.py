"""Supervised fine-tuning: TRL's SFTTrainer on encoded conversations.

records -> template -> tokens with labels -> packed -> steps -> model, with held-out loss by source
"""

import math
from typing import Any

import torch

from llmtrain.config.sft import SftConfig
from llmtrain.conversations.records import Conversation
from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.posttraining.batch_sizes import fill_up
from llmtrain.posttraining.callback import StageCallback, WithoutModelCard, quieten
from llmtrain.posttraining.chat import ChatTokenizer, load_chat_tokenizer
from llmtrain.posttraining.context import StageContext, sum_over_ranks
from llmtrain.posttraining.finish import save_trained, take_weights
from llmtrain.posttraining.models import check_vocabulary, load_causal_model
from llmtrain.posttraining.packing import check_packing
from llmtrain.posttraining.records import SplitRecords, read_split_conversations
from llmtrain.posttraining.sft_data import Examples, encode_conversations
from llmtrain.posttraining.start import start_or_resume
from llmtrain.posttraining.trained_prompts import leave_out_trained, read_trained
from llmtrain.posttraining.trainer_arguments import build_arguments, build_deepspeed, find_max_length

_PACKED_TOGETHER = 10_000  # examples among which the best fit is looked for


def train_sft(context: StageContext, section: SftConfig) -> dict[str, Any] | None:
    """Train, save the model.

    Returns:
        The summary, on every rank; None when a signal stopped it after saving.
    """
    chat = load_chat_tokenizer(context.parents["model"])
    model = load_causal_model(context.parents["model"])
    check_vocabulary(model, chat)
    if section.packing:
        check_packing(model)
    max_length = find_max_length("sft", section.max_length, model)
    records, train, held_out = _encode_records(context, section, chat, max_length)
    trainer: Any = None

    def evaluate(step: int) -> dict[str, float]:
        return compute_held_out_loss(trainer.model_wrapped, held_out, section.micro_batch_size, chat.pad_id, context)

    callback = StageCallback(context, section, evaluate)
    trainer, sequences = _build_trainer(context, section, chat, model, train, max_length, callback)
    trainer.train(resume_from_checkpoint=start_or_resume(context))
    if trainer.state.global_step < trainer.state.max_steps:
        return None
    after = callback.evaluate(trainer.state.global_step)
    weights = take_weights(trainer.accelerator, trainer.model_wrapped)
    prompts = [record.prompt for record in records.train]
    save_trained(context, model, weights, chat, context.model_folder, prompts)
    return {
        "steps": trainer.state.global_step,
        "records": records.describe(),
        "train_examples": train.describe(),
        "sequences": sequences,
        "held_out_examples": held_out.describe(),
        "max_length": max_length,
        "held_out_loss": {"before": context.read_first("validation/loss"), "after": after.get("validation/loss")},
        "held_out_loss_by_source": after,
    }


def _encode_records(
    context: StageContext, section: SftConfig, chat: ChatTokenizer, max_length: int
) -> tuple[SplitRecords[Conversation], Examples, Examples]:
    """Records, and their examples to train on and held out; none was trained on before and is held out."""
    records = read_split_conversations(section.data, section.validation_fraction)
    leave_out_trained(records, read_trained(context.parents), "sft.data")
    limits = (max_length, section.long_examples, section.loss_on)
    train = encode_conversations(chat, records.train, *limits)
    if not records.held_out:
        return records, train, Examples()
    return records, train, encode_conversations(chat, records.held_out, *limits, training=len(train.input_ids))


def _build_trainer(
    context: StageContext,
    section: SftConfig,
    chat: ChatTokenizer,
    model: Any,
    train: Examples,
    max_length: int,
    callback: StageCallback,
) -> tuple[Any, dict[str, int]]:
    """TRL's trainer on sequences, packed or not, and how many these are."""
    from datasets import Dataset
    from trl import SFTConfig as Arguments
    from trl import SFTTrainer
    from trl.data_utils import pack_dataset

    class Trainer(WithoutModelCard, SFTTrainer):  # type: ignore[misc]
        """TRL's, without a page about itself in every checkpoint."""

    arguments = Arguments(
        **build_arguments("sft", section, context.checkpoints, context.config.run.seed, context.world),
        deepspeed=build_deepspeed("sft", section, context.world.world_size),
        num_train_epochs=section.train_epochs,
        max_length=max_length,
        packing=section.packing,
        packing_strategy="bfd",
        dataset_kwargs={"skip_prepare_dataset": True},
        # The loss in chunks reads the output weight beside its module, where ZeRO-3 has not gathered it.
        loss_type="nll" if section.zero_stage == 3 else "chunked_nll",
    )
    rows = Dataset.from_dict({"input_ids": train.input_ids, "labels": train.labels})
    if section.packing:
        rows = pack_dataset(rows, max_length, "bfd", {"batch_size": _PACKED_TOGETHER})
    rows, repeated = fill_up(rows, section.global_batch_size)
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows, processing_class=chat.tokenizer, callbacks=[callback]
    )
    quieten(trainer)
    return trainer, {"trained": len(rows), "repeated_to_fill_the_last_batch": repeated}


@torch.no_grad()
def compute_held_out_loss(
    model: Any, examples: Examples, batch_size: int, pad_id: int, context: StageContext
) -> dict[str, float]:
    """Nats per learned token of held-out examples, in all and by source; the same on every rank and layout."""
    names = sorted(set(examples.sources))
    sums = torch.zeros(len(names), 2, dtype=torch.float64)
    ranks, rank = context.world.world_size, context.world.rank
    was_training = model.training
    model.eval()
    # Ranks take turns; under ZeRO-3 each forward pass is one of all ranks, so all make as many.
    for start in range(0, math.ceil(len(examples.input_ids) / (ranks * batch_size)) * batch_size, batch_size):
        places = [i * ranks + rank for i in range(start, start + batch_size)]
        chosen = [place for place in places if place < len(examples.input_ids)] or [0]
        losses = _sum_losses(
            model, [(examples.input_ids[i], examples.labels[i]) for i in chosen], pad_id, context.device
        )
        if places[0] < len(examples.input_ids):
            for place, (loss, count) in zip(chosen, losses, strict=True):
                sums[names.index(examples.sources[place])] += torch.tensor([loss, count], dtype=torch.float64)
    model.train(was_training)
    sums = sum_over_ranks(sums)
    if not names:
        return {}
    by_source = {f"validation/loss_{name}": float(row[0] / row[1]) for name, row in zip(names, sums, strict=True)}
    return {"validation/loss": float(sums[:, 0].sum() / sums[:, 1].sum())} | by_source


def _sum_losses(
    model: Any, rows: list[tuple[list[int], list[int]]], pad_id: int, device: torch.device
) -> list[tuple[float, int]]:
    width = max(len(ids) for ids, _ in rows)
    ids_BT = torch.tensor([ids + [pad_id] * (width - len(ids)) for ids, _ in rows], device=device)
    labels_BT = torch.tensor([labels + [IGNORE_INDEX] * (width - len(labels)) for _, labels in rows], device=device)
    mask_BT = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows], device=device)
    logits = model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), labels_BT[:, 1:], ignore_index=IGNORE_INDEX, reduction="none"
    )
    counts = (labels_BT[:, 1:] != IGNORE_INDEX).sum(1)
    return [(float(loss), int(count)) for loss, count in zip(losses.double().sum(1), counts, strict=True)]
