import pytest
import torch

from llmtrain.model.generate import cached_logits, choose_token, generate
from llmtrain.model.gpt import GPT
from llmtrain.plan.model_shape import ModelShape
from tests.helpers.shapes import LLAMA, SHAPES
from tests.model.test_gpt import build, draw_ids


def run(model: GPT, prompt: list[int], **changes: object) -> list[int]:
    settings = {"max_new_tokens": 20, "temperature": 0.0, "top_k": None, "eos_id": -1} | changes
    length, draw = model.shape.max_sequence_length, torch.Generator().manual_seed(0)
    return generate(cached_logits(model), prompt, max_sequence_length=length, generator=draw, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_the_cache_changes_nothing(shape: ModelShape) -> None:
    model = build(shape).eval()
    ids = draw_ids(shape, batch=1, tokens=7)
    expected = ids
    with torch.no_grad():
        for _ in range(20):
            expected = torch.cat([expected, model(expected)[:, -1:].argmax(-1)], dim=1)
    assert run(model, ids[0].tolist()) == expected[0, 7:].tolist()


def test_generation_ends_with_eos_and_leaves_it_out() -> None:
    model = build(LLAMA).eval()
    prompt = draw_ids(LLAMA, batch=1, tokens=7)[0].tolist()
    whole = run(model, prompt)
    assert run(model, prompt, eos_id=whole[3]) == whole[: whole.index(whole[3])]


def test_long_prompts_keep_their_end_and_positions_stay_in_range() -> None:
    model = build(SHAPES["gpt2"]).eval()
    prompt = draw_ids(LLAMA, batch=1, tokens=200)[0].tolist()
    assert len(run(model, prompt, max_new_tokens=30)) == 30
    assert run(model, prompt, max_new_tokens=30) == run(model, prompt[-34:], max_new_tokens=30)
    assert len(run(model, prompt, max_new_tokens=1000)) == LLAMA.max_sequence_length - 1


def test_the_seed_decides_what_is_drawn() -> None:
    model = build(LLAMA).eval()
    drawn = [run(model, [1, 2, 3], temperature=1.0) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != run(model, [1, 2, 3])


def test_only_the_most_likely_tokens_are_drawn() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 2.0])
    draw = torch.Generator().manual_seed(0)
    assert {choose_token(logits, 5.0, 2, draw) for _ in range(200)} == {1, 3}
    assert {choose_token(logits, 5.0, None, draw) for _ in range(200)} == {0, 1, 2, 3}
    assert choose_token(logits, 0.0, None, draw) == 1
