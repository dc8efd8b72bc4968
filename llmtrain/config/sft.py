"""Section `sft`: supervised fine-tuning on conversations."""

from pathlib import Path
from typing import Literal

from llmtrain.config.records import RecordsConfig
from llmtrain.config.section import Name, PositiveFloat, PositiveInt
from llmtrain.config.stage_training import StageTraining


class SftConfig(StageTraining):
    """TRL's SFTTrainer on conversations, prompts with completions, or both."""

    model: Path | None = None
    """Hugging Face folder to start from; null = the pretrained model of this run."""
    data: dict[Name, RecordsConfig] = {}
    """Conversations by source; empty = those that section `instructions` makes."""
    train_epochs: PositiveFloat = 1.0
    """Passes over the training records."""
    max_length: PositiveInt | None = None
    """Tokens of one example at most; null = what the model can read."""
    long_examples: Literal["leave_out", "cut", "refuse"] = "leave_out"
    """Examples beyond `max_length` are left out, cut at their end, or refused; they are counted in any case."""
    packing: bool = True
    """Lay several conversations into one sequence; they do not attend to each other."""
    loss_on: Literal["assistant", "all"] = "assistant"
    """Which tokens are learned: those of the assistant with the end of the message, or all."""
