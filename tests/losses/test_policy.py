"""The arithmetic of reinforcement learning: against naive loops, and against TRL's on the same numbers."""

import functools
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from llmtrain.losses.policy import (
    Moments,
    adapt_coefficient,
    compute_advantages,
    compute_leave_one_out,
    compute_moments,
    compute_policy_loss,
    compute_sequence_loss,
    compute_value_loss,
    estimate_kl,
    place_scores,
    whiten,
)

# float64 sums of a few dozen numbers of size one.
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
# TRL divides a whole number by a whole number for Bessel's correction, which is a float32.
TRL_VARIANCE: dict[str, Any] = {"rtol": 1e-7, "atol": 1e-7}


@functools.cache
def import_trl() -> Any:
    """TRL's module, late: its import takes many seconds."""
    import trl.experimental.ppo.ppo_trainer

    return trl.experimental.ppo.ppo_trainer


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask_of(lengths: list[int], width: int) -> torch.Tensor:
    return torch.arange(width)[None] < torch.tensor(lengths)[:, None]


MASK = mask_of([5, 1, 3, 2, 4, 5], 5)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    padding=st.integers(0, 3),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
def test_advantages_are_the_discounted_sums_of_all_later_errors(
    lengths: list[int], padding: int, gamma: float, gae_lambda: float, seed: int
) -> None:
    width = max(lengths) + padding
    rewards, values = draw(len(lengths), width, seed=seed), draw(len(lengths), width, seed=seed + 1)
    advantages, returns = compute_advantages(rewards, values, mask_of(lengths, width), gamma, gae_lambda)
    for row, length in enumerate(lengths):
        for i in range(width):
            expected = 0.0
            for k in range(i, length):
                following = float(values[row, k + 1]) if k + 1 < length else 0.0
                error = float(rewards[row, k]) + gamma * following - float(values[row, k])
                expected += (gamma * gae_lambda) ** (k - i) * error
            assert float(advantages[row, i]) == pytest.approx(expected, rel=1e-9, abs=1e-9)
            own_value = float(values[row, i]) if i < length else 0.0
            assert float(returns[row, i]) == pytest.approx(expected + own_value, rel=1e-9, abs=1e-9)


def test_with_lambda_one_returns_are_what_is_still_to_come_whatever_the_values_are() -> None:
    rewards = draw(6, 5)
    _, returns = compute_advantages(rewards, draw(6, 5, seed=1), MASK, gamma=1.0, gae_lambda=1.0)
    kept = rewards * MASK
    expected = kept.flip(1).cumsum(1).flip(1) * MASK
    torch.testing.assert_close(returns, expected, **EXACT)


def test_padding_never_reaches_advantages_and_returns() -> None:
    rewards, values = draw(6, 5), draw(6, 5, seed=1)
    clean = compute_advantages(rewards, values, MASK, 0.9, 0.8)
    soiled = compute_advantages(rewards.where(MASK, 1e9), values.where(MASK, -1e9), MASK, 0.9, 0.8)
    for one, other in zip(clean, soiled, strict=True):
        assert torch.equal(one, other)
        assert one[~MASK].count_nonzero() == 0


def test_the_score_is_paid_at_the_last_token_and_kl_at_every_token() -> None:
    kl, scores = draw(6, 5), draw(6, seed=1)
    rewards = place_scores(kl, scores, MASK, 0.3)
    for row in range(6):
        length = int(MASK[row].sum())
        for i in range(5):
            expected = -0.3 * float(kl[row, i]) * (i < length) + float(scores[row]) * (i == length - 1)
            assert float(rewards[row, i]) == pytest.approx(expected)
    torch.testing.assert_close(rewards.sum(1), scores - 0.3 * (kl * MASK).sum(1), **EXACT)


def test_k1_is_the_difference_of_logs_and_k3_is_schulmans_form() -> None:
    logprobs, reference = draw(4, 5), draw(4, 5, seed=1)
    torch.testing.assert_close(estimate_kl(logprobs, reference, "k1"), logprobs - reference)
    log_ratio = reference - logprobs
    k3 = estimate_kl(logprobs, reference, "k3")
    torch.testing.assert_close(k3, log_ratio.exp() - 1 - log_ratio)
    assert (k3 >= 0).all()


def test_both_estimators_have_the_divergence_as_mean_and_k3_varies_less() -> None:
    policy, reference = (draw(30, seed=seed, scale=0.3).log_softmax(0) for seed in (0, 1))
    divergence = float((policy.exp() * (policy - reference)).sum())
    variances = {}
    for name in ("k1", "k3"):
        values = estimate_kl(policy, reference, name)
        mean = float((policy.exp() * values).sum())
        assert mean == pytest.approx(divergence, rel=1e-9)
        variances[name] = float((policy.exp() * (values - mean).square()).sum())
    assert variances["k3"] < variances["k1"]


def test_a_policy_that_is_its_reference_has_no_divergence() -> None:
    logprobs = draw(4, 5)
    for name in ("k1", "k3"):
        assert estimate_kl(logprobs, logprobs.clone(), name).count_nonzero() == 0


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whitening_is_that_of_trl(shift_mean: bool) -> None:
    values = draw(6, 5, scale=3.0) + 2
    expected = import_trl().masked_whiten(values, MASK, shift_mean=shift_mean)
    found = whiten(values, MASK, compute_moments(values, MASK), shift_mean)
    torch.testing.assert_close(found[MASK], expected[MASK], **TRL_VARIANCE)
    assert found[~MASK].count_nonzero() == 0


def test_whitening_keeps_float32_and_computes_in_float64() -> None:
    values = (draw(6, 5) + 1000).float()
    found = whiten(values, MASK, compute_moments(values, MASK))
    expected = import_trl().masked_whiten(values.double(), MASK)
    assert found.dtype == torch.float32
    # The squares of numbers near 1000 lose six digits of float64's sixteen.
    torch.testing.assert_close(found[MASK].double(), expected[MASK], rtol=1e-6, atol=1e-6)


def test_moments_of_the_parts_add_up_to_those_of_the_whole() -> None:
    values = draw(6, 5)
    whole = compute_moments(values, MASK)
    parts = [compute_moments(values[rows], MASK[rows]) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
    added = Moments(*(sum(getattr(part, name) for part in parts) for name in ("count", "total", "squares")))
    assert int(added.count) == int(whole.count) == int(MASK.sum())
    torch.testing.assert_close(added.total, whole.total, **EXACT)
    torch.testing.assert_close(added.squares, whole.squares, **EXACT)
    torch.testing.assert_close(whiten(values, MASK, added), whiten(values, MASK, whole), **EXACT)


def test_one_value_and_equal_values_whiten_to_zero() -> None:
    for mask in (mask_of([1], 1), mask_of([4, 2], 4)):
        values = torch.full(mask.shape, 2.5, dtype=torch.float64)
        assert whiten(values, mask, compute_moments(values, mask)).count_nonzero() == 0


def test_the_policy_loss_is_that_of_trl() -> None:
    logprobs, old = draw(6, 5, scale=0.5).requires_grad_(), draw(6, 5, seed=1, scale=0.5)
    advantages, clip_range = draw(6, 5, seed=2), 0.2
    # From PPOTrainer.train, which fills both log-probabilities with 1.0 at padding.
    masked_mean = import_trl().masked_mean
    logprobs_diff = torch.masked_fill(logprobs, ~MASK, 1.0) - torch.masked_fill(old, ~MASK, 1.0)
    ratio = torch.exp(logprobs_diff)
    pg_losses = -advantages * ratio
    pg_losses2 = -advantages * torch.clamp(ratio, 1.0 - clip_range, 1.0 + clip_range)
    pg_loss = masked_mean(torch.max(pg_losses, pg_losses2), MASK)
    pg_clipfrac = masked_mean((pg_losses2 > pg_losses).double(), MASK)
    (gradient,) = torch.autograd.grad(pg_loss, logprobs)

    found, count = compute_policy_loss(logprobs, old, advantages, MASK, clip_range), MASK.sum()
    torch.testing.assert_close(found.loss / count, pg_loss, **EXACT)
    torch.testing.assert_close(found.clipped_tokens / count, pg_clipfrac, check_dtype=False)
    torch.testing.assert_close(torch.autograd.grad(found.loss / count, logprobs)[0], gradient, **EXACT)
    torch.testing.assert_close(found.approximate_kl, 0.5 * (logprobs_diff[MASK] ** 2).sum(), **EXACT)
    torch.testing.assert_close(found.ratio, ratio[MASK].sum(), **EXACT)
    assert 0 < float(pg_clipfrac) < 1


def test_the_value_loss_is_that_of_trl() -> None:
    values, old, returns = draw(6, 5).requires_grad_(), draw(6, 5, seed=1), draw(6, 5, seed=2)
    clip_range = 0.2
    # From PPOTrainer.train.
    masked_mean = import_trl().masked_mean
    vpredclipped = torch.clamp(values, old - clip_range, old + clip_range)
    vf_losses1, vf_losses2 = torch.square(values - returns), torch.square(vpredclipped - returns)
    vf_loss = 0.5 * masked_mean(torch.max(vf_losses1, vf_losses2), MASK)
    vf_clipfrac = masked_mean((vf_losses2 > vf_losses1).double(), MASK)
    (gradient,) = torch.autograd.grad(vf_loss, values)

    loss, clipped = compute_value_loss(values, old, returns, MASK, clip_range)
    torch.testing.assert_close(loss / MASK.sum(), vf_loss, **EXACT)
    torch.testing.assert_close(clipped / MASK.sum(), vf_clipfrac, check_dtype=False)
    torch.testing.assert_close(torch.autograd.grad(loss / MASK.sum(), values)[0], gradient, **EXACT)
    assert 0 < float(vf_clipfrac) < 1


@settings(max_examples=30, deadline=None)
@given(groups=st.integers(1, 5), answers=st.integers(2, 6), seed=st.integers(0, 10**6))
def test_leave_one_out_advantages_are_those_of_trl(groups: int, answers: int, seed: int) -> None:
    rewards = draw(groups * answers, seed=seed)
    # From RLOOTrainer._generate_and_score_completions, where no reward is missing.
    grouped_rewards = rewards.view(-1, answers)
    grouped_sum = grouped_rewards.sum(dim=1, keepdim=True)
    baselines = (grouped_sum - grouped_rewards) / (answers - 1)
    expected = rewards - baselines.view(-1)
    found = compute_leave_one_out(rewards.view(-1, answers))
    torch.testing.assert_close(found.flatten(), expected, **EXACT)
    torch.testing.assert_close(found.sum(1), torch.zeros(groups, dtype=torch.float64), **EXACT)
    naive = [row[i] - (sum(row) - row[i]) / (answers - 1) for row in grouped_rewards.tolist() for i in range(answers)]
    assert found.flatten().tolist() == pytest.approx(naive, abs=1e-9)


def test_the_sequence_loss_is_that_of_trl() -> None:
    per_token_logps, old = draw(6, 5, scale=0.2).requires_grad_(), draw(6, 5, seed=1, scale=0.2)
    advantages, clip_range = draw(6, seed=2), 0.2
    # From RLOOTrainer._compute_loss.
    log_ratio = (per_token_logps * MASK).sum(1) - (old * MASK).sum(1)
    coef_1 = torch.exp(log_ratio)
    coef_2 = torch.clamp(coef_1, 1 - clip_range, 1 + clip_range)
    expected = -torch.min(coef_1 * advantages, coef_2 * advantages).mean()
    is_clipped = ((coef_1 < 1 - clip_range) & (advantages < 0)) | ((coef_1 > 1 + clip_range) & (advantages > 0))
    (gradient,) = torch.autograd.grad(expected, per_token_logps)

    found = compute_sequence_loss(per_token_logps, old, advantages, MASK, clip_range)
    torch.testing.assert_close(found.loss / 6, expected, **EXACT)
    torch.testing.assert_close(torch.autograd.grad(found.loss / 6, per_token_logps)[0], gradient, **EXACT)
    assert int(found.clipped_tokens) == int(is_clipped.sum()) > 0
    torch.testing.assert_close(found.ratio, coef_1.sum(), **EXACT)


def test_before_the_first_update_the_ratio_is_one_and_nothing_is_clipped() -> None:
    logprobs, count = draw(6, 5), int(MASK.sum())
    advantages = draw(6, 5, seed=2)
    found = compute_policy_loss(logprobs, logprobs.clone(), advantages, MASK, 0.2)
    assert (float(found.ratio), int(found.clipped_tokens), float(found.approximate_kl)) == (count, 0, 0.0)
    torch.testing.assert_close(found.loss, -(advantages * MASK).sum(), **EXACT)
    sequence = compute_sequence_loss(logprobs, logprobs.clone(), advantages[:, 0], MASK, 0.2)
    assert (float(sequence.ratio), int(sequence.clipped_tokens), float(sequence.approximate_kl)) == (6, 0, 0.0)
    loss, clipped = compute_value_loss(logprobs, logprobs.clone(), logprobs.clone(), MASK, 0.2)
    assert (float(loss), int(clipped)) == (0.0, 0)


def test_padding_has_no_part_in_the_losses() -> None:
    logprobs, old, advantages = draw(6, 5), draw(6, 5, seed=1), draw(6, 5, seed=2)
    clean = compute_policy_loss(logprobs, old, advantages, MASK, 0.2)
    soiled = compute_policy_loss(logprobs.where(MASK, 50.0), old.where(MASK, -50.0), advantages, MASK, 0.2)
    assert clean == soiled
    assert compute_value_loss(logprobs, old, advantages, MASK, 0.2) == compute_value_loss(
        logprobs.where(MASK, 1e9), old, advantages, MASK, 0.2
    )


def test_sums_over_micro_batches_are_those_of_the_mini_batch() -> None:
    logprobs, old, advantages = draw(6, 5), draw(6, 5, seed=1), draw(6, 5, seed=2)
    whole = compute_policy_loss(logprobs, old, advantages, MASK, 0.2).loss
    parts = [
        compute_policy_loss(logprobs[i : i + 2], old[i : i + 2], advantages[i : i + 2], MASK[i : i + 2], 0.2).loss
        for i in (0, 2, 4)
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), whole, **EXACT)


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(6.0, 1.0), (6.6, 1.01), (5.4, 0.99), (1000.0, 1.02), (0.0, 0.98), (-3.0, 0.98)],
)
def test_the_coefficient_turns_towards_the_target_by_a_fifth_of_the_horizon_at_most(kl: float, factor: float) -> None:
    assert adapt_coefficient(0.5, kl, target=6.0, responses=10, horizon=100) == pytest.approx(0.5 * factor)


@settings(deadline=None)
@given(kl=st.floats(-1e6, 1e6), responses=st.integers(1, 10**6), horizon=st.integers(1, 10**6))
def test_the_coefficient_stays_positive_and_changes_by_a_fifth_at_most(kl: float, responses: int, horizon: int) -> None:
    found = adapt_coefficient(0.5, kl, 6.0, responses, horizon)
    assert 0.4 - 1e-12 <= found <= 0.6 + 1e-12
