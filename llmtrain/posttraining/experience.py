"""What an update learns from: the responses of one rollout, judged. The same on every rank.

each rank: draw responses -> score, log-probabilities of the reference, values
gathered:  rows of all ranks, in the order of the prompts
together:  KL -> rewards per token -> advantages, whitened over all rows
"""

from dataclasses import dataclass

import torch

from llmtrain.config.ppo import PpoConfig
from llmtrain.losses.policy import (
    compute_advantages,
    compute_leave_one_out,
    compute_moments,
    estimate_kl,
    place_scores,
    whiten,
)


@dataclass(frozen=True)
class Row:
    """One judged response; lists are as long as the response."""

    prompt: list[int]
    response: list[int]
    logprobs: list[float]
    reference_logprobs: list[float]
    values: list[float]
    scores: dict[str, float]
    """By term of the reward, before weights."""
    score: float
    """Their weighted sum."""
    has_ended: bool


@dataclass(frozen=True)
class Experience:
    """All rows of a rollout; B responses, R tokens."""

    rows: list[Row]
    mask_BR: torch.Tensor
    logprobs_BR: torch.Tensor
    values_BR: torch.Tensor
    advantages_BR: torch.Tensor
    """With `rloo` the same for all tokens of a response."""
    returns_BR: torch.Tensor
    """With `rloo` zero."""
    kl_B: torch.Tensor
    """Nats of each response."""
    shaped_scores_B: torch.Tensor
    """Scores after the penalty for not ending and the limits."""


def shape_scores(scores_B: torch.Tensor, has_ended_B: torch.Tensor, ppo: PpoConfig) -> torch.Tensor:
    """Scores within their limits, less the penalty of responses that do not end."""
    if ppo.reward_clip is not None:
        scores_B = scores_B.clamp(-ppo.reward_clip, ppo.reward_clip)
    return scores_B - ppo.missing_eos_penalty * ~has_ended_B


def build_experience(rows: list[Row], ppo: PpoConfig, kl_coefficient: float) -> Experience:
    """Rewards and advantages of judged rows.

    Args:
        rows: of all ranks, in the order of the prompts.
        ppo: the section.
        kl_coefficient: price of KL at this step.
    """
    mask = _stack([[1.0] * len(row.response) for row in rows]).bool()
    logprobs, values = _stack([row.logprobs for row in rows]), _stack([row.values for row in rows])
    reference = _stack([row.reference_logprobs for row in rows])
    kl_BR = estimate_kl(logprobs, reference, ppo.kl.estimator) * mask
    scores_B = torch.tensor([row.score for row in rows], dtype=torch.float32)
    shaped_B = shape_scores(scores_B, torch.tensor([row.has_ended for row in rows]), ppo)
    if ppo.algorithm == "rloo":
        rewards_B = shaped_B - kl_coefficient * kl_BR.sum(1)
        advantages_B = compute_leave_one_out(rewards_B.view(-1, ppo.num_generations)).flatten()
        advantages_BR = advantages_B[:, None] * mask
        return Experience(rows, mask, logprobs, values, advantages_BR, torch.zeros_like(values), kl_BR.sum(1), shaped_B)
    rewards_BR = place_scores(kl_BR, shaped_B, mask, kl_coefficient)
    if ppo.whiten_rewards:
        rewards_BR = whiten(rewards_BR, mask, compute_moments(rewards_BR, mask), shift_mean=False)
    advantages_BR, returns_BR = compute_advantages(rewards_BR, values, mask, ppo.gamma, ppo.gae_lambda)
    advantages_BR = whiten(advantages_BR, mask, compute_moments(advantages_BR, mask))
    return Experience(rows, mask, logprobs, values, advantages_BR, returns_BR, kl_BR.sum(1), shaped_B)


def explain_variance(values_BR: torch.Tensor, returns_BR: torch.Tensor, mask_BR: torch.Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over tokens: 1 = foreseen, 0 = as good as a constant."""
    returns, errors = returns_BR[mask_BR].double(), (returns_BR - values_BR)[mask_BR].double()
    variance = float(returns.var(correction=0))
    return 1 - float(errors.var(correction=0)) / variance if variance > 0 else 0.0


def _stack(rows: list[list[float]]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [0.0] * (width - len(row)) for row in rows], dtype=torch.float32)
