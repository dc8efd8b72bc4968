"""The arithmetic of reinforcement learning from a reward, as pure functions.

Shapes: B responses, R tokens of a response. Masks are true where a token counts.

    scores, KL per token -> rewards -> advantages and returns (GAE) -> whitened -> clipped losses
"""

from dataclasses import dataclass
from typing import Literal

import torch


def estimate_kl(
    logprobs: torch.Tensor, reference_logprobs: torch.Tensor, estimator: Literal["k1", "k3"]
) -> torch.Tensor:
    """KL(policy || reference) of each token by its sample.

    Args:
        logprobs: of the policy that drew the tokens, any shape.
        reference_logprobs: of the reference, same shape.
        estimator: `k1` = log p/q; `k3` = q/p - 1 - log q/p, never negative and of smaller variance.

    Source:
        Schulman 2020, "Approximating KL Divergence".
    """
    log_ratio = reference_logprobs - logprobs
    return -log_ratio if estimator == "k1" else log_ratio.exp() - 1 - log_ratio


def place_scores(
    kl_BR: torch.Tensor, scores_B: torch.Tensor, mask_BR: torch.Tensor, coefficient: float
) -> torch.Tensor:
    """Reward of each token: minus its KL, and the score at the last token of the response.

    Source:
        Ziegler et al. 2019, equation 2; Ouyang et al. 2022, equation 2.
    """
    rewards_BR = -coefficient * kl_BR * mask_BR
    last_B = mask_BR.sum(1) - 1
    return rewards_BR.scatter_add(1, last_B[:, None], scores_B[:, None].to(rewards_BR.dtype))


def compute_advantages(
    rewards_BR: torch.Tensor, values_BR: torch.Tensor, mask_BR: torch.Tensor, gamma: float, gae_lambda: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalized advantage estimates and returns; the value after the last token is zero.

    Args:
        rewards_BR: per token.
        values_BR: value before each token is chosen.
        mask_BR: tokens of the responses, a prefix of each row.
        gamma: discount.
        gae_lambda: 0 = one step, 1 = whole return.

    Returns:
        Advantages and returns, both zero at padding.

    Source:
        Schulman et al. 2016, equation 16.
    """
    mask = mask_BR.to(rewards_BR.dtype)
    values, rewards = values_BR * mask, rewards_BR * mask
    advantages, following = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for i in reversed(range(rewards.shape[1])):
        next_value = values[:, i + 1] if i + 1 < rewards.shape[1] else torch.zeros_like(following)
        following = (rewards[:, i] + gamma * next_value - values[:, i] + gamma * gae_lambda * following) * mask[:, i]
        advantages[:, i] = following
    return advantages, (advantages + values) * mask


def compute_leave_one_out(rewards_GK: torch.Tensor) -> torch.Tensor:
    """Reward of each answer minus the mean of the other answers to its prompt.

    Args:
        rewards_GK: G prompts, K >= 2 answers.

    Source:
        Ahmadian et al. 2024, equation 7 (RLOO).
    """
    others = (rewards_GK.sum(1, keepdim=True) - rewards_GK) / (rewards_GK.shape[1] - 1)
    return rewards_GK - others


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares; they add up over ranks."""

    count: torch.Tensor
    total: torch.Tensor
    squares: torch.Tensor


def compute_moments(values: torch.Tensor, mask: torch.Tensor) -> Moments:
    """Of the values that count, in float64."""
    kept = values.double() * mask
    return Moments(mask.sum().double(), kept.sum(), kept.square().sum())


def whiten(values: torch.Tensor, mask: torch.Tensor, moments: Moments, shift_mean: bool = True) -> torch.Tensor:
    """Divide by the standard deviation, and take off the mean unless it is to stay.

    Args:
        values: any shape.
        mask: same shape.
        moments: of all values, of every rank.
        shift_mean: whether the mean becomes zero.

    Returns:
        Same shape; zero where the mask is false.
    """
    mean = moments.total / moments.count
    # Bessel's correction, as in TRL; a single value has no variance.
    variance = (moments.squares / moments.count - mean**2) * moments.count / (moments.count - 1).clamp(min=1)
    whitened = (values.double() - mean) * torch.rsqrt(variance.clamp(min=0) + 1e-8)
    return ((whitened if shift_mean else whitened + mean) * mask).to(values.dtype)


@dataclass(frozen=True)
class PolicyLoss:
    """Sums over tokens; dividing by the tokens of the whole mini-batch is for the caller, who knows all ranks."""

    loss: torch.Tensor
    clipped_tokens: torch.Tensor
    approximate_kl: torch.Tensor
    """Sum of half the squared change of the log-probability (Schulman 2020)."""
    ratio: torch.Tensor
    """Sum of the probability ratios."""


def compute_policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    clip_range: float,
) -> PolicyLoss:
    """The clipped surrogate.

    Source:
        Schulman et al. 2017, equation 7.
    """
    change = (logprobs - old_logprobs) * mask
    ratio = change.exp()
    free, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    with torch.no_grad():
        clipped_tokens = ((clipped > free) & mask.bool()).sum()
        approximate_kl, ratios = 0.5 * change.square().sum(), (ratio * mask).sum()
    return PolicyLoss((torch.maximum(free, clipped) * mask).sum(), clipped_tokens, approximate_kl, ratios)


def compute_sequence_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages_B: torch.Tensor,
    mask: torch.Tensor,
    clip_range: float,
) -> PolicyLoss:
    """The clipped surrogate with a whole response as one action: sums over responses, in place of tokens.

    `clipped_tokens` counts responses; `approximate_kl` and `ratio` are sums over responses, too.

    Source:
        Ahmadian et al. 2024, section 3.
    """
    change_B = ((logprobs - old_logprobs) * mask).sum(1)
    return compute_policy_loss(
        change_B, torch.zeros_like(change_B), advantages_B, torch.ones_like(change_B), clip_range
    )


def compute_value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor, clip_range: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half the squared error, of the value or of the value kept near the old one, whichever is larger.

    Returns:
        Its sum over tokens, and the number of tokens where the limit counted.

    Source:
        Schulman et al. 2017, in the form of baselines and TRL.
    """
    near = torch.minimum(torch.maximum(values, old_values - clip_range), old_values + clip_range)
    free, clipped = (values - returns).square(), (near - returns).square()
    loss = 0.5 * (torch.maximum(free, clipped) * mask).sum()
    return loss, ((clipped > free) & mask.bool()).sum()


def adapt_coefficient(coefficient: float, kl: float, target: float, responses: int, horizon: int) -> float:
    """The KL coefficient after a rollout, turned towards a target at a rate limited to a fifth.

    Source:
        Ziegler et al. 2019, section 2.2.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    # A rollout of more responses than the horizon counts as the horizon: the coefficient stays positive.
    return coefficient * (1 + error * min(responses / horizon, 1.0))
