"""What ends a run early, and what is told of a rollout."""

import pytest

from llmtrain.config.ppo import GuardsConfig, PpoConfig
from llmtrain.posttraining.experience import Row, build_experience


def make_row(score: float, tokens: int, ended: bool) -> Row:
    return Row(
        [1, 2],
        [5] * tokens,
        [-1.0] * tokens,
        [-1.5] * tokens,
        [0.0] * tokens,
        {"model": score, "off": 1.0},
        score,
        ended,
    )


def test_without_limits_nothing_ends_a_run() -> None:
    from llmtrain.posttraining.ppo_trainer import find_guard

    assert find_guard(GuardsConfig(), {"ppo/kl": 1e9, "ppo/response_tokens": 1e9}, 1.0) is None


@pytest.mark.parametrize(
    ("kl", "tokens", "message"),
    [
        (5.0, 20.0, None),
        (5.01, 1.0, "KL of 5.01 nats is above ppo.guards.max_kl = 5.0"),
        (
            1.0,
            20.1,
            "responses of 20.1 tokens are more than ppo.guards.max_length_growth = 2.0 times the 10.0 of the "
            "fine-tuned model",
        ),
    ],
)
def test_a_rollout_beyond_a_limit_is_told_with_its_numbers(kl: float, tokens: float, message: str | None) -> None:
    from llmtrain.posttraining.ppo_trainer import find_guard

    guards = GuardsConfig(max_kl=5.0, max_length_growth=2.0)
    metrics = {"ppo/kl": kl, "ppo/response_tokens": tokens}
    assert find_guard(guards, metrics, 10.0) == message
    if message is None or "responses" in message:
        assert find_guard(guards, metrics, None) is None


def test_means_over_a_rollout_are_told() -> None:
    from llmtrain.posttraining.ppo_trainer import describe_experience

    ppo = PpoConfig(learning_rate=1e-4, train_steps=1, reward_clip=2.0, missing_eos_penalty=1.0)
    rows = [make_row(3.0, 2, ended=True), make_row(1.0, 4, ended=False)]
    found = describe_experience(build_experience(rows, ppo, 0.1), 0.1)
    assert found["ppo/kl"] == pytest.approx(0.5 * 3)
    assert (found["ppo/score"], found["ppo/score_std"]) == (2.0, 1.0)
    assert (found["ppo/score_model"], found["ppo/score_off"]) == (2.0, 1.0)
    # Scores of 2 and 0 after the limit and the penalty, less the price of KL.
    assert found["ppo/reward"] == pytest.approx(1.0 - 0.1 * 1.5)
    assert (found["ppo/response_tokens"], found["ppo/ended_fraction"]) == (3.0, 0.5)
    assert found["ppo/kl_coefficient"] == 0.1
