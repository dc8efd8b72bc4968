"""Section `ppo`: reinforcement learning from a reward, by PPO or RLOO."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from llmtrain.config.records import RecordsConfig
from llmtrain.config.reward import GenerationConfig, ScoreFunction
from llmtrain.config.section import (
    Fraction,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
)
from llmtrain.config.stage_training import StageTraining


class ModelReward(Section):
    """A reward model."""

    kind: Literal["model"]
    """A model with one score per sequence."""
    path: Path | None = None
    """Hugging Face folder; null = the model of `reward`."""
    weight: float = 1.0
    """Factor in the sum of rewards."""


class FunctionReward(ScoreFunction):
    """A Python function as reward."""

    kind: Literal["function"]
    """A function of prompts and responses."""
    weight: float = 1.0
    """Factor in the sum of rewards."""


RewardTerm = Annotated[ModelReward | FunctionReward, Field(discriminator="kind")]


class KlConfig(Section):
    """The price of leaving the reference, paid per token (Ziegler et al. 2019)."""

    coefficient: NonNegativeFloat = 0.05
    """Factor of the KL divergence in the reward; where adaptive control starts."""
    estimator: Literal["k1", "k3"] = "k1"
    """Of the KL divergence by samples (Schulman 2020); both are unbiased, k3 varies less. With `top_k` or `top_p`
    neither is: log-probabilities are those of the whole distribution, and the tokens are not drawn from all of it."""
    target: PositiveFloat | None = None
    """Nats per response: the coefficient is turned up above and down below it; null = fixed coefficient."""
    horizon: PositiveInt = 10_000
    """Responses over which an adaptive coefficient follows (Ziegler et al. 2019, section 2.2)."""


class GuardsConfig(Section):
    """When a run ends early, in order, with the best checkpoint kept."""

    max_kl: PositiveFloat | None = None
    """Nats per response, mean of one rollout; null = no ceiling."""
    max_length_growth: PositiveFloat | None = None
    """Mean tokens of a response over those of the fine-tuned model, e.g. 2.0; null = no limit."""


class PpoConfig(StageTraining):
    """Rollouts, rewards, updates (Schulman et al. 2017; Ouyang et al. 2022), on TRL's PPOTrainer."""

    algorithm: Literal["ppo", "rloo"] = "ppo"
    """`ppo` learns a value model; `rloo` takes the other answers to a prompt as baseline (Ahmadian et al. 2024)."""
    model: Path | None = None
    """Hugging Face folder of policy and reference; null = the model of `sft`."""
    prompts: dict[Name, RecordsConfig] = {}
    """Prompts by source; empty = those of `sft`."""
    rewards: dict[Name, RewardTerm] = {"model": ModelReward(kind="model")}
    """Terms of the reward, summed with their weights; each is logged."""
    gold: ScoreFunction | None = None
    """A measure of what is really wanted. It is never optimized, only reported on held-out prompts."""
    generation: GenerationConfig = GenerationConfig()
    """How responses are drawn."""
    train_steps: PositiveInt
    """Rollouts, each followed by `epochs` passes of updates over it."""
    epochs: PositiveInt = 4
    """Passes over each rollout."""
    mini_batches: PositiveInt = 1
    """Optimizer steps of one pass."""
    clip_range: PositiveFloat = 0.2
    """Limit of the probability ratio."""
    value_clip_range: PositiveFloat = 0.2
    """Limit of a change of a value."""
    value_coefficient: NonNegativeFloat = 0.1
    """Weight of the value loss."""
    gamma: Fraction = 1.0
    """Discount per token."""
    gae_lambda: Fraction = 0.95
    """Bias against variance of advantages (Schulman et al. 2016)."""
    critic_warmup_steps: NonNegativeInt = 0
    """First rollouts from which only the value model learns; with `weight_decay` the policy still decays."""
    num_generations: PositiveInt = 4
    """`rloo`: answers per prompt."""
    kl: KlConfig = KlConfig()
    """The price of leaving the reference."""
    reward_clip: PositiveFloat | None = None
    """Scores are kept within plus and minus this; null = as they are."""
    whiten_rewards: bool = False
    """Divide per-token rewards by their standard deviation over all ranks."""
    missing_eos_penalty: NonNegativeFloat = 0.0
    """Taken from the score of a response that does not end."""
    guards: GuardsConfig = GuardsConfig()
    """Ends a run early."""
    evaluation_prompts: PositiveInt = 256
    """Held-out prompts answered at each evaluation, at most."""
    sample_table_rows: PositiveInt = 8
    """Rows of the table of samples at each evaluation."""
