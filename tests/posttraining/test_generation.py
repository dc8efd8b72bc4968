"""Responses: the same whatever is beside them, equal to a loop without a cache, drawn as the probabilities say."""

import math
from typing import Any

import pytest
import torch

from llmtrain.config.reward import GenerationConfig
from llmtrain.posttraining.generation import Rollout, choose_tokens, draw_exponentials, draw_responses, pad_left
from llmtrain.posttraining.policy_and_value import compute_logprobs, join_rows

EOS, PAD, NEVER = 2, 3, -1
PROMPTS = [[1, 50, 60, 70], [1, 80], [1, *range(20, 45)], [1, 90, 91, 92, 93, 94, 95]]
KEYS = [100 + place for place in range(4)]
# float32 sums in another order; draws lie further apart than this from where a token would change.
ROUNDING = 1e-5
TWELVE = GenerationConfig(max_new_tokens=12)


def draw(
    models: dict[str, Any],
    family: str,
    places: list[int],
    generation: GenerationConfig = TWELVE,
    eos: int = NEVER,
) -> Rollout:
    prompts, keys = [PROMPTS[i] for i in places], [KEYS[i] for i in places]
    return draw_responses(models[family], prompts, keys, generation, eos, PAD)


def show(rollout: Rollout, row: int) -> list[int]:
    return [int(i) for i in rollout.response_ids_BR[row][rollout.mask_BR[row]]]


def test_a_response_is_the_same_alone_and_in_any_batch(models: dict[str, Any], family: str) -> None:
    together = draw(models, family, [0, 1, 2, 3])
    turned = draw(models, family, [3, 2, 1, 0])
    for place in range(4):
        alone = draw(models, family, [place])
        assert show(alone, 0) == show(together, place) == show(turned, 3 - place)
        for other in (together.logprobs_BR[place], turned.logprobs_BR[3 - place]):
            torch.testing.assert_close(alone.logprobs_BR[0], other, rtol=0, atol=ROUNDING)


@torch.no_grad()
def test_responses_are_those_of_a_loop_without_cache_and_padding(models: dict[str, Any], family: str) -> None:
    generation = GenerationConfig(max_new_tokens=12, temperature=0.8, top_k=50, top_p=0.95)
    rollout = draw(models, family, [0, 1, 2, 3], generation)
    for place, prompt in enumerate(PROMPTS):
        ids, key = list(prompt), torch.tensor([KEYS[place]])
        for i in range(12):
            logits = models[family](input_ids=torch.tensor([ids]), use_cache=False).logits[:, -1].float() / 0.8
            clocks = draw_exponentials(key, i, logits.shape[-1])
            ids.append(int(choose_tokens(logits.log_softmax(-1), clocks, generation)))
        assert show(rollout, place) == ids[len(prompt) :]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@torch.no_grad()
def test_logprobs_are_those_of_one_full_forward_pass(models: dict[str, Any], family: str, temperature: float) -> None:
    rollout = draw(models, family, [0, 1, 2, 3], GenerationConfig(max_new_tokens=12, temperature=temperature))
    for place, prompt in enumerate(PROMPTS):
        response = show(rollout, place)
        logits = models[family](input_ids=torch.tensor([prompt + response]), use_cache=False).logits
        logprobs = (logits[0, len(prompt) - 1 : -1].float() / temperature).log_softmax(-1)
        expected = logprobs.gather(1, torch.tensor(response)[:, None])[:, 0]
        torch.testing.assert_close(rollout.logprobs_BR[place], expected, rtol=0, atol=ROUNDING)


@torch.no_grad()
def test_the_update_sees_the_logprobs_that_the_rollout_had(models: dict[str, Any], family: str) -> None:
    first = show(draw(models, family, [0]), 0)
    rollout = draw(models, family, [0, 1, 2, 3], eos=first[4])
    responses = [show(rollout, place) for place in range(4)]
    rows = join_rows(PROMPTS, responses, PAD, torch.device("cpu"))
    logprobs, entropy = compute_logprobs(models[family], rows, TWELVE.temperature)
    mask = rollout.mask_BR
    torch.testing.assert_close(logprobs[mask], rollout.logprobs_BR[mask], rtol=0, atol=ROUNDING)
    assert (entropy[mask] > 0).all()
    assert (entropy[mask] <= math.log(400) + ROUNDING).all()


def test_a_response_stops_after_its_end_and_is_padded(models: dict[str, Any], family: str) -> None:
    free = draw(models, family, [0, 1, 2, 3])
    end = show(free, 0)[4]
    stopped = draw(models, family, [0, 1, 2, 3], eos=end)
    for place in range(4):
        expected = show(free, place)
        expected = expected[: expected.index(end) + 1] if end in expected else expected
        assert show(stopped, place) == expected
        rest = stopped.response_ids_BR.shape[1] - len(expected)
        assert stopped.response_ids_BR[place, len(expected) :].tolist() == [PAD] * rest
        assert stopped.logprobs_BR[place, len(expected) :].tolist() == [0.0] * rest
        assert stopped.mask_BR[place].tolist() == [True] * len(expected) + [False] * rest
    alone = draw(models, family, [0], eos=end)
    assert alone.response_ids_BR.shape == (1, len(show(stopped, 0)))


@torch.no_grad()
def test_top_k_of_one_is_greedy_whatever_the_key(models: dict[str, Any], family: str) -> None:
    generation = GenerationConfig(max_new_tokens=6, top_k=1)
    rollout = draw(models, family, [0, 1, 2, 3], generation)
    other = draw_responses(models[family], PROMPTS, [99, 98, 97, 96], generation, NEVER, PAD)
    assert torch.equal(rollout.response_ids_BR, other.response_ids_BR)
    for place, prompt in enumerate(PROMPTS):
        ids = list(prompt)
        for _ in range(6):
            ids.append(int(models[family](input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        assert show(rollout, place) == ids[len(prompt) :]


def test_different_keys_draw_different_responses_and_equal_keys_the_same(models: dict[str, Any], family: str) -> None:
    prompts = [PROMPTS[0]] * 4
    rollout = draw_responses(models[family], prompts, [1, 2, 3, 1], TWELVE, NEVER, PAD)
    rows = [tuple(row) for row in rollout.response_ids_BR.tolist()]
    assert len(set(rows)) == 3
    assert rows[0] == rows[3]


def test_the_mode_of_the_model_is_given_back_and_dropout_is_off(models: dict[str, Any]) -> None:
    model = models["gpt2"]
    expected = draw(models, "gpt2", [0])
    try:
        model.train()
        found = draw(models, "gpt2", [0])
        assert model.training
    finally:
        model.eval()
    assert torch.equal(found.response_ids_BR, expected.response_ids_BR)
    assert torch.equal(found.logprobs_BR, expected.logprobs_BR)


def test_prompts_are_padded_on_the_left() -> None:
    assert pad_left([[5, 6, 7], [8]], PAD).tolist() == [[5, 6, 7], [PAD, PAD, 8]]


def test_draws_are_exponential_and_a_function_of_key_and_position() -> None:
    keys = torch.tensor([5, 6, 5, -7])
    rows = draw_exponentials(keys, 3, 20_000)
    assert torch.equal(rows[0], rows[2])
    assert torch.equal(draw_exponentials(keys[1:2], 3, 10)[0], rows[1, :10])
    assert not torch.equal(rows[0], draw_exponentials(keys, 4, 20_000)[0])
    assert (rows >= 0).all()
    # Mean, variance and independence within five standard deviations.
    assert (rows.mean(1) - 1).abs().max() < 5 / 20_000**0.5
    assert (rows.var(1) - 1).abs().max() < 5 * (8 / 20_000) ** 0.5
    assert torch.corrcoef(torch.stack([rows[0], rows[1], rows[3]])).fill_diagonal_(0).abs().max() < 5 / 20_000**0.5
    # The quartiles of the distribution, not only its moments.
    assert [float((rows[0] < math.log(4 / k)).double().mean()) for k in (3, 2, 1)] == pytest.approx(
        [0.25, 0.5, 0.75], abs=5 * (0.25 / 20_000) ** 0.5
    )


def test_rounding_of_a_large_vocabulary_changes_next_to_no_token() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 20_000, generator=generator) * 2
    clocks = draw_exponentials(torch.arange(400), 0, 20_000)
    noisy = logits + 1e-6 * torch.randn(logits.shape, generator=generator)
    first, second = (choose_tokens(row.log_softmax(-1), clocks, GenerationConfig()) for row in (logits, noisy))
    # Inversion of the cumulative distribution changes several of these.
    assert (first != second).sum() == 0


PROBABILITIES = torch.tensor([0.05, 0.4, 0.0, 0.25, 0.3], dtype=torch.float64)


def choose(clocks: torch.Tensor, **settings: Any) -> torch.Tensor:
    rows = PROBABILITIES.log().expand(len(clocks), -1)
    return choose_tokens(rows, clocks, GenerationConfig(**settings))


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0, 1, 3, 4]),
        ({"top_k": 1}, [1]),
        ({"top_k": 2}, [1, 4]),
        ({"top_k": 100}, [0, 1, 3, 4]),
        ({"top_p": 0.01}, [1]),
        ({"top_p": 0.39}, [1]),
        ({"top_p": 0.41}, [1, 4]),
        ({"top_p": 0.69}, [1, 4]),
        ({"top_p": 0.71}, [1, 3, 4]),
        ({"top_p": 0.96}, [0, 1, 3, 4]),
        # Of the 0.7 that top-k leaves, 0.4 is more than a half.
        ({"top_k": 2, "top_p": 0.5}, [1]),
        ({"top_k": 2, "top_p": 0.6}, [1, 4]),
    ],
)
def test_top_k_and_top_p_keep_the_likeliest_and_draw_as_their_probabilities_say(
    settings: dict[str, Any], kept: list[int]
) -> None:
    count = 20_000
    found = torch.bincount(choose(draw_exponentials(torch.arange(count), 11, 5), **settings), minlength=5).double()
    assert found.nonzero()[:, 0].tolist() == kept
    expected = torch.zeros(5, dtype=torch.float64)
    expected[kept] = PROBABILITIES[kept] / PROBABILITIES[kept].sum() * count
    chi_square = float(((found - expected)[kept].square() / expected[kept]).sum())
    # 99.9 % of the distribution with three degrees of freedom lie below.
    assert chi_square < 16.27


@pytest.mark.parametrize("settings", [{}, {"top_k": 3}, {"top_p": 0.8}, {"top_k": 3, "top_p": 0.8}])
def test_the_ends_of_the_distribution_draw_tokens_that_are_possible(settings: dict[str, Any]) -> None:
    latest = -math.log(2.0**-53)
    clocks = torch.tensor([[0.0] * 5, [latest] * 5], dtype=torch.float64)
    first, last = (int(i) for i in choose(clocks, **settings))
    assert (first, last) == (0 if settings == {} else 1, 1)


def test_temperature_sharpens_and_flattens(models: dict[str, Any]) -> None:
    probabilities = {}
    for temperature in (0.1, 1.0, 10.0):
        generation = TWELVE.model_copy(update={"temperature": temperature})
        rollout = draw_responses(models["llama"], [PROMPTS[0]] * 50, list(range(50)), generation, NEVER, PAD)
        probabilities[temperature] = float(rollout.logprobs_BR.mean())
    assert probabilities[0.1] > probabilities[1.0] > probabilities[10.0]
    # The uniform distribution over 400 pieces.
    assert probabilities[10.0] == pytest.approx(-math.log(400), abs=0.5)
