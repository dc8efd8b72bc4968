"""What an update learns from, out of judged responses."""

from typing import Any

import pytest
import torch

from llmtrain.config.ppo import KlConfig, PpoConfig
from llmtrain.losses.policy import compute_advantages, compute_moments, whiten
from llmtrain.posttraining.experience import Row, build_experience, explain_variance, shape_scores

LENGTHS = [3, 1, 4, 2]


def make_ppo(**settings: Any) -> PpoConfig:
    return PpoConfig(learning_rate=1e-4, train_steps=1, micro_batch_size=2, global_batch_size=4, **settings)


def make_rows() -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for i, length in enumerate(LENGTHS):
        logprobs, reference, values = torch.randn(3, length, generator=generator).tolist()
        score = float(i) - 1.5
        scores = {"model": score, "other": 7.0}
        rows.append(Row([1, 2], [5] * length, logprobs, reference, values, scores, score, has_ended=i != 2))
    return rows


def test_scores_are_cut_then_responses_without_an_end_pay() -> None:
    scores, ended = torch.tensor([5.0, -5.0, 0.5, 5.0]), torch.tensor([True, True, False, False])
    assert shape_scores(scores, ended, make_ppo()).tolist() == [5.0, -5.0, 0.5, 5.0]
    assert shape_scores(scores, ended, make_ppo(reward_clip=2.0)).tolist() == [2.0, -2.0, 0.5, 2.0]
    assert shape_scores(scores, ended, make_ppo(missing_eos_penalty=1.0)).tolist() == [5.0, -5.0, -0.5, 4.0]
    both = make_ppo(reward_clip=2.0, missing_eos_penalty=1.0)
    assert shape_scores(scores, ended, both).tolist() == [2.0, -2.0, -0.5, 1.0]


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_ppo_adds_up_kl_scores_and_advantages_of_a_naive_loop(estimator: Any) -> None:
    rows, ppo = make_rows(), make_ppo(kl=KlConfig(estimator=estimator), missing_eos_penalty=0.25, gamma=0.9)
    found = build_experience(rows, ppo, kl_coefficient=0.3)
    rewards, values = torch.zeros(4, 4), torch.zeros(4, 4)
    for i, row in enumerate(rows):
        for j in range(len(row.response)):
            log_ratio = row.reference_logprobs[j] - row.logprobs[j]
            kl = -log_ratio if estimator == "k1" else float(torch.tensor(log_ratio).exp()) - 1 - log_ratio
            rewards[i, j] = -0.3 * kl
            values[i, j] = row.values[j]
        rewards[i, len(row.response) - 1] += row.score - 0.25 * (not row.has_ended)
    mask = torch.arange(4)[None] < torch.tensor(LENGTHS)[:, None]
    advantages, returns = compute_advantages(rewards, values, mask, 0.9, 0.95)
    torch.testing.assert_close(found.returns_BR, returns)
    torch.testing.assert_close(found.advantages_BR, whiten(advantages, mask, compute_moments(advantages, mask)))
    assert torch.equal(found.mask_BR, mask)
    assert found.advantages_BR[~mask].count_nonzero() == found.returns_BR[~mask].count_nonzero() == 0
    kept = found.advantages_BR[mask]
    assert float(kept.mean()) == pytest.approx(0, abs=1e-6)
    assert float(kept.std()) == pytest.approx(1, abs=1e-6)


def test_kl_is_summed_over_each_response() -> None:
    rows = make_rows()
    found = build_experience(rows, make_ppo(), kl_coefficient=0.3)
    expected = [sum(row.logprobs) - sum(row.reference_logprobs) for row in rows]
    assert found.kl_B.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.shaped_scores_B.tolist() == [-1.5, -0.5, 0.5, 1.5]


def test_whitened_rewards_keep_their_mean_and_have_deviation_one() -> None:
    rows = make_rows()
    # With gamma and lambda of zero and values of zero, returns are the rewards themselves.
    flat = [
        Row(r.prompt, r.response, r.logprobs, r.reference_logprobs, [0.0] * len(r.response), {}, r.score, True)
        for r in rows
    ]
    settings: dict[str, Any] = {"gamma": 0.0, "gae_lambda": 0.0}
    plain = build_experience(flat, make_ppo(**settings), 0.3)
    white = build_experience(flat, make_ppo(whiten_rewards=True, **settings), 0.3)
    before, after = plain.returns_BR[plain.mask_BR], white.returns_BR[white.mask_BR]
    assert float(after.mean()) == pytest.approx(float(before.mean()), abs=1e-6)
    assert float(after.std()) == pytest.approx(1, abs=1e-5)


def test_rloo_compares_the_answers_of_a_group_and_no_others() -> None:
    rows = [*make_rows(), *make_rows()[:2]]
    found = build_experience(rows, make_ppo(algorithm="rloo", num_generations=2), kl_coefficient=0.3)
    kl = [sum(row.logprobs) - sum(row.reference_logprobs) for row in rows]
    rewards = [row.score - 0.3 * nats for row, nats in zip(rows, kl, strict=True)]
    expected = [
        rewards[0] - rewards[1],
        rewards[1] - rewards[0],
        rewards[2] - rewards[3],
        rewards[3] - rewards[2],
    ]
    expected += expected[:2]
    for i, length in enumerate([*LENGTHS, *LENGTHS[:2]]):
        assert found.advantages_BR[i].tolist() == pytest.approx([expected[i]] * length + [0.0] * (4 - length), abs=1e-5)
    assert found.returns_BR.count_nonzero() == 0
    turned = build_experience(rows[2:] + rows[:2], make_ppo(algorithm="rloo", num_generations=2), 0.3)
    torch.testing.assert_close(turned.advantages_BR, found.advantages_BR[[2, 3, 4, 5, 0, 1]])
    threes = build_experience(rows, make_ppo(algorithm="rloo", num_generations=3), 0.3).advantages_BR[:, 0]
    assert float(threes[:3].sum()) == pytest.approx(0, abs=1e-5)
    assert float(threes[1]) == pytest.approx(rewards[1] - (rewards[0] + rewards[2]) / 2, abs=1e-5)


def test_explained_variance_is_one_for_true_values_zero_for_a_constant_and_negative_for_worse() -> None:
    generator = torch.Generator().manual_seed(0)
    returns, mask = torch.randn(4, 5, generator=generator), torch.rand(4, 5, generator=generator) < 0.7
    assert explain_variance(returns, returns, mask) == 1.0
    assert explain_variance(torch.full_like(returns, 3.0), returns, mask) == pytest.approx(0, abs=1e-6)
    assert explain_variance(-returns, returns, mask) == pytest.approx(-3, abs=1e-6)
    assert explain_variance(returns.where(mask, 100.0), returns, mask) == 1.0
    assert explain_variance(returns, torch.ones_like(returns), mask) == 0.0
    values = returns + 0.5 * torch.randn(4, 5, generator=generator)
    errors = (returns - values)[mask]
    expected = 1 - float(errors.var()) / float(returns[mask].var())
    assert explain_variance(values, returns, mask) == pytest.approx(expected, abs=1e-5)
