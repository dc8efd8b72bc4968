"""The loss that TRL's RewardTrainer computes for us is that of a naive loop over pairs."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.models import start_reward_model
from llmtrain.posttraining.rewards import score_sequences

PAIRS = [([1, 20, 21, 22, 2], [1, 20, 30, 2]), ([1, 9, 2], [1, 9, 10, 11, 12, 2]), ([1, 50, 51, 2], [1, 50, 52, 2])]
COEFFICIENT = 0.01


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_loss_is_that_of_bradley_and_terry(
    family: str, model_folders: dict[str, Path], chat: ChatTokenizer, tmp_path: Path
) -> None:
    from trl import RewardConfig, RewardTrainer

    model = start_reward_model(model_folders[family], chat.pad_id, seed=0)
    rows = Dataset.from_dict({"chosen_ids": [pair[0] for pair in PAIRS], "rejected_ids": [pair[1] for pair in PAIRS]})
    arguments = RewardConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=len(PAIRS),
        center_rewards_coefficient=COEFFICIENT,
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
    )
    trainer = RewardTrainer(model=model, args=arguments, train_dataset=rows, processing_class=chat.tokenizer)
    model.eval()
    batch = next(iter(trainer.get_train_dataloader()))
    found = float(trainer.compute_loss(model, batch).detach())
    chosen, rejected = (score_sequences(model, [pair[i] for pair in PAIRS], chat.pad_id, 1) for i in (0, 1))
    losses = [
        -torch.nn.functional.logsigmoid(a - b) + COEFFICIENT * (a + b) ** 2
        for a, b in zip(chosen, rejected, strict=True)
    ]
    assert found == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
