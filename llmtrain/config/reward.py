"""Section `reward`: the reward model, trained on pairs of answers."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from llmtrain.config.records import RecordsConfig
from llmtrain.config.section import Fraction, Name, NonNegativeFloat, PositiveFloat, PositiveInt, Section
from llmtrain.config.stage_training import StageTraining


class ScoreFunction(Section):
    """A Python function `function(prompts: list[str], responses: list[str]) -> list[float]`."""

    file: Path
    """Python file."""
    function: str = "score"
    """Name of the function in it."""


class GenerationConfig(Section):
    """How responses are drawn."""

    max_new_tokens: PositiveInt = 48
    """Tokens of a response at most, the end of the message included."""
    temperature: PositiveFloat = 1.0
    """Logits are divided by it."""
    top_k: PositiveInt | None = None
    """Draw from the k most likely tokens; null = from all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the fewest tokens that hold this probability (nucleus, Holtzman et al. 2020)."""


class SampledPairsConfig(Section):
    """Pairs of answers that the fine-tuned model itself gives, labelled by a function in place of people."""

    label: ScoreFunction
    """The higher score is chosen; equal scores are left out and counted."""
    pairs: PositiveInt = 2000
    """Pairs to draw; prompts are those of `sft`, as often as needed."""
    label_noise: Fraction = 0.0
    """Probability that the label of a training pair is turned round: people disagree in a quarter of comparisons."""
    generation: GenerationConfig = GenerationConfig()
    """How the answers are drawn."""


class RewardConfig(StageTraining):
    """TRL's RewardTrainer on pairs (Bradley-Terry)."""

    model: Path | None = None
    """Hugging Face folder to start from; null = the model of `sft`."""
    data: dict[Name, RecordsConfig] = {}
    """Pairs by source; empty without `sampled` = those that section `instructions` makes."""
    sampled: SampledPairsConfig | None = None
    """Pairs drawn from the fine-tuned model, besides `data`."""
    train_epochs: PositiveFloat = 1.0
    """Passes over the training pairs."""
    max_length: PositiveInt | None = None
    """Tokens of prompt and answer at most; null = what the model can read."""
    long_examples: Literal["leave_out", "refuse"] = "leave_out"
    """Pairs beyond `max_length` are left out or refused; they are counted in any case."""
    center_rewards_coefficient: NonNegativeFloat = 0.01
    """Weight of the squared sum of both rewards, which keeps them around zero (Eisenstein et al. 2023)."""
