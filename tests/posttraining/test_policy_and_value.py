"""What an update computes of both models: the same for a response whatever pads it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llmtrain.posttraining.models import load_causal_model, start_reward_model
from llmtrain.posttraining.policy_and_value import PolicyAndValue, compute_logprobs, compute_values, join_rows

PAD = 3
PROMPTS = [[1, 50, 60, 70], [1, 80], [1, *range(20, 45)]]
RESPONSES = [[30, 31, 2], [40, 41, 42, 43, 44, 2], [2]]
CPU = torch.device("cpu")
# float32 sums in another order.
ROUNDING = 1e-5


@pytest.fixture
def both(family: str, model_folders: dict[str, Path]) -> PolicyAndValue:
    folder = model_folders[family]
    return PolicyAndValue(load_causal_model(folder), start_reward_model(folder, PAD, 1)).eval()


def test_rows_are_padded_on_both_sides_and_positions_count_tokens() -> None:
    rows = join_rows([[1, 5], [1]], [[6], [7, 8]], PAD, CPU)
    assert rows.ids_BT.tolist() == [[1, 5, 6, PAD], [PAD, 1, 7, 8]]
    assert rows.attention_BT.tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]
    assert rows.positions.tolist() == [[0, 1, 2, 2], [0, 0, 1, 2]]
    assert rows.responses.tolist() == [[6, PAD], [7, 8]]


def test_a_padding_id_inside_a_text_is_a_token() -> None:
    rows = join_rows([[1, PAD]], [[PAD, 2]], PAD, CPU)
    assert rows.attention_BT.tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@torch.no_grad()
def test_logprobs_entropies_and_values_are_those_of_each_text_alone(both: PolicyAndValue, temperature: float) -> None:
    rows = join_rows(PROMPTS, RESPONSES, PAD, CPU)
    found = both(rows.ids_BT, rows.attention_BT, rows.response_tokens, temperature)
    for i, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        ids, before = torch.tensor([prompt + response]), slice(len(prompt) - 1, -1)
        logprobs = (both.policy(input_ids=ids, use_cache=False).logits[0, before] / temperature).log_softmax(-1)
        chosen = logprobs.gather(1, torch.tensor(response)[:, None])[:, 0]
        entropy = -torch.xlogy(logprobs.exp(), logprobs.exp()).sum(-1)
        trunk = getattr(both.value_model, both.value_model.base_model_prefix)
        values = both.value_model.score(trunk(input_ids=ids).last_hidden_state)[0, before, 0]
        for column, expected in zip(found, (chosen, entropy, values), strict=True):
            torch.testing.assert_close(column[i, : len(response)], expected, rtol=0, atol=ROUNDING)


@torch.no_grad()
def test_the_value_is_that_before_the_token_is_chosen(both: PolicyAndValue) -> None:
    rows = join_rows(PROMPTS[:1], RESPONSES[:1], PAD, CPU)
    other = join_rows(PROMPTS[:1], [[30, 31, 99]], PAD, CPU)
    assert torch.equal(compute_values(both.value_model, rows), compute_values(both.value_model, other))
    earlier = join_rows(PROMPTS[:1], [[99, 31, 2]], PAD, CPU)
    changed = compute_values(both.value_model, rows) != compute_values(both.value_model, earlier)
    assert changed.tolist() == [[False, True, True]]


def test_without_a_value_model_values_are_zero(both: PolicyAndValue) -> None:
    alone = PolicyAndValue(both.policy, None)
    rows = join_rows(PROMPTS, RESPONSES, PAD, CPU)
    logprobs, _, values = alone(rows.ids_BT, rows.attention_BT, rows.response_tokens, 1.0)
    assert values.count_nonzero() == 0
    assert torch.equal(logprobs, compute_logprobs(both.policy, rows, 1.0)[0])
    assert not any(name.startswith("value_model") for name in alone.state_dict())


def test_gradients_reach_both_models_and_entropy_none(both: PolicyAndValue) -> None:
    rows = join_rows(PROMPTS, RESPONSES, PAD, CPU)
    logprobs, entropy, values = both(rows.ids_BT, rows.attention_BT, rows.response_tokens, 1.0)
    assert not entropy.requires_grad
    (logprobs.sum() + values.sum()).backward()
    for model in (both.policy, both.value_model):
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_recomputed_activations_give_the_same_gradients(both: PolicyAndValue) -> None:
    rows = join_rows(PROMPTS, RESPONSES, PAD, CPU)
    gradients: list[list[Any]] = []
    for recompute in (False, True):
        if recompute:
            both.gradient_checkpointing_enable()
        assert both.is_gradient_checkpointing == recompute
        for module in both.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        both.train().zero_grad()
        logprobs, _, values = both(rows.ids_BT, rows.attention_BT, rows.response_tokens, 1.0)
        (logprobs.sum() + values.sum()).backward()
        gradients.append([parameter.grad.clone() for parameter in both.parameters() if parameter.grad is not None])
    both.gradient_checkpointing_disable()
    assert not both.is_gradient_checkpointing
    torch.testing.assert_close(*gradients, rtol=0, atol=ROUNDING)
