"""TRL's packing: a conversation in a packed row is read as if it stood alone."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmtrain.config.records import RecordsConfig
from llmtrain.config.sft import SftConfig
from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.errors import CheckpointError
from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.models import load_causal_model
from llmtrain.posttraining.packing import check_packing
from llmtrain.posttraining.records import read_split_conversations
from llmtrain.posttraining.sft_data import Examples, encode_conversations
from llmtrain.posttraining.trainer_arguments import build_arguments
from llmtrain.process.world import World
from tests.posttraining.conftest import POSITIONS

# float32 sums in another order.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def examples(chat: ChatTokenizer, conversations_file: Path) -> Examples:
    records = read_split_conversations({"web": RecordsConfig(paths=(str(conversations_file),))}, 0.0)
    return encode_conversations(chat, records.train, POSITIONS, "refuse", "assistant")


def build_trainer(model: Any, chat: ChatTokenizer, examples: Examples, folder: Path) -> Any:
    """A trainer with the arguments that the stage gives it."""
    from datasets import Dataset
    from trl import SFTConfig as Arguments
    from trl import SFTTrainer

    section = SftConfig(learning_rate=1e-3, micro_batch_size=2, global_batch_size=2)
    arguments = Arguments(
        **build_arguments("sft", section, folder, 0, World()),
        max_length=POSITIONS,
        packing=section.packing,
        packing_strategy="bfd",
    )
    rows = Dataset.from_dict({"input_ids": examples.input_ids, "labels": examples.labels})
    return SFTTrainer(model=model, args=arguments, train_dataset=rows, processing_class=chat.tokenizer)


@torch.no_grad()
def test_no_conversation_sees_another_in_its_row(
    family: str, model_folders: dict[str, Path], chat: ChatTokenizer, examples: Examples, tmp_path: Path
) -> None:
    model = load_causal_model(model_folders[family])
    assert model.config._attn_implementation == "sdpa"
    trainer = build_trainer(model, chat, examples, tmp_path)
    model.eval()
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    documents_in_row = []
    for batch in trainer.get_train_dataloader():
        labels = batch.pop("labels")
        logits = model(**batch, use_cache=False).logits
        # With a mask of its own the model no longer looks at positions, and conversations do see each other.
        leaking = model(**batch | {"attention_mask": torch.ones_like(batch["input_ids"])}, use_cache=False).logits
        assert float((leaking - logits).abs().max()) > 1000 * ROUNDING
        for row in range(len(logits)):
            positions = batch["position_ids"][row]
            starts = [*(positions == 0).nonzero()[:, 0].tolist(), len(positions)]
            documents_in_row.append(len(starts) - 1)
            for start, end in itertools.pairwise(starts):
                ids = batch["input_ids"][row, start:end]
                if bool((ids == chat.pad_id).all()):
                    continue
                alone = model(input_ids=ids[None], use_cache=False).logits[0]
                torch.testing.assert_close(logits[row, start:end], alone, rtol=0, atol=ROUNDING)
                found.append((tuple(ids.tolist()), tuple(labels[row, start:end].tolist())))
    assert max(documents_in_row) > 2
    expected = [(tuple(ids), tuple(row)) for ids, row in zip(examples.input_ids, examples.labels, strict=True)]
    assert sorted(found) == sorted(expected)


@torch.no_grad()
def test_the_loss_of_packed_rows_is_the_mean_over_the_learned_tokens_of_all_conversations(
    family: str, model_folders: dict[str, Path], chat: ChatTokenizer, examples: Examples, tmp_path: Path
) -> None:
    model = load_causal_model(model_folders[family])
    trainer = build_trainer(model, chat, examples, tmp_path)
    model.eval()
    total, count = 0.0, 0
    for ids, labels in zip(examples.input_ids, examples.labels, strict=True):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(labels[1:]), reduction="sum"))
        count += sum(label != IGNORE_INDEX for label in labels)
    found = 0.0
    for batch in trainer.get_train_dataloader():
        tokens = int((batch["labels"] != IGNORE_INDEX).sum())
        found += float(trainer.compute_loss(model, batch)) * tokens
    assert found / count == pytest.approx(total / count, rel=1e-5)


def test_families_that_begin_again_at_position_0_are_taken(family: str, models: dict[str, Any]) -> None:
    check_packing(models[family])


def build_opt() -> Any:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=40,
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        init_std=0.2,
    )
    return OPTForCausalLM(config)


def build_bloom() -> Any:
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(vocab_size=40, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.2)
    return BloomForCausalLM(config)


@pytest.mark.parametrize("build", [build_opt, build_bloom])
def test_families_that_see_the_other_conversations_of_a_row_are_refused(build: Callable[[], Any]) -> None:
    model = build().train()
    with pytest.raises(CheckpointError) as caught:
        check_packing(model)
    assert str(caught.value).startswith(f"{type(model).__name__} does not keep packed conversations apart: ")
    assert "Set sft.packing=false; each conversation then has a row of its own." in str(caught.value)
    assert model.training
