import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.model.gpt import GPT, LossOutput
from llmtrain.model.initialize import initialize_weights
from llmtrain.plan.model_shape import ModelShape
from tests.helpers.shapes import GPT2, LLAMA, SHAPES, change

SHAPE_CASES = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


def build(shape: ModelShape, seed: int = 0, **options: object) -> GPT:
    model = GPT(shape, **options)  # type: ignore[arg-type]
    initialize_weights(model, seed)
    with torch.no_grad():  # far from the initial state, where every part matters
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
            else:
                parameter.mul_(5)
    return model


def draw_ids(shape: ModelShape, batch: int = 2, tokens: int = 20) -> torch.Tensor:
    return torch.randint(0, shape.vocab_size, (batch, tokens), generator=torch.Generator().manual_seed(1))


def compute_loss(model: GPT, ids: torch.Tensor, labels: torch.Tensor, **options: torch.Tensor) -> LossOutput:
    output = model(ids, labels_BT=labels, **options)
    assert isinstance(output, LossOutput)
    return output


@SHAPE_CASES
def test_the_number_of_parameters_is_the_one_of_the_shape(shape: ModelShape) -> None:
    model = GPT(shape)
    tables = 1 if shape.tie_word_embeddings else 2
    padding = tables * (shape.padded_vocab_size - shape.vocab_size) * shape.hidden_size
    assert sum(parameter.numel() for parameter in model.parameters()) == shape.num_parameters + padding


@SHAPE_CASES
def test_losses_are_sums_of_those_of_the_logits(shape: ModelShape) -> None:
    model, ids = build(shape, loss_chunk_tokens=7), draw_ids(shape)
    labels = ids.roll(-1, 1)
    labels[0, :5] = IGNORE_INDEX
    output = compute_loss(model, ids, labels)
    logits = model(ids)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 20, shape.vocab_size)
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    torch.testing.assert_close(output.loss_per_sequence_B, losses.view(2, 20).sum(1).detach())
    torch.testing.assert_close(output.loss_sum, losses.sum())
    assert output.token_count_per_sequence_B.tolist() == [15, 20]


@SHAPE_CASES
def test_a_token_depends_on_no_later_one(shape: ModelShape) -> None:
    model, ids = build(shape), draw_ids(shape)
    changed = ids.clone()
    changed[:, 10:] = (changed[:, 10:] + 1) % shape.vocab_size
    before, after = model(ids), model(changed)
    assert isinstance(before, torch.Tensor)
    assert isinstance(after, torch.Tensor)
    assert torch.equal(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, 10:], after[:, 10:])


@pytest.mark.parametrize("shape", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_masked_documents_are_computed_as_if_alone(shape: ModelShape) -> None:
    model, ids = build(shape), draw_ids(shape, batch=1)
    documents = torch.tensor([[0] * 8 + [1] * 12])
    positions = torch.cat([torch.arange(8), torch.arange(12)])[None]
    together = model(ids, position_ids_BT=positions, document_ids_BT=documents)
    assert isinstance(together, torch.Tensor)
    apart = torch.cat([model(ids[:, :8]), model(ids[:, 8:])], dim=1)
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


@SHAPE_CASES
@pytest.mark.parametrize("kind", ["selective", "full"])
def test_recompute_changes_no_bit_of_loss_and_gradients(shape: ModelShape, kind: str) -> None:
    ids = draw_ids(shape)
    results = []
    for recompute in ("none", kind):
        model = build(shape, activation_recompute=recompute)
        output = compute_loss(model, ids, ids.roll(-1, 1))
        output.loss_sum.backward()  # type: ignore[no-untyped-call]
        results.append((output.loss_sum, [parameter.grad for parameter in model.parameters()]))
    assert torch.equal(results[0][0], results[1][0])
    for kept, recomputed in zip(results[0][1], results[1][1], strict=True):
        assert kept is not None
        assert recomputed is not None
        assert torch.equal(kept, recomputed)


@SHAPE_CASES
def test_selective_recompute_does_no_product_twice(shape: ModelShape) -> None:
    ids, flops = draw_ids(shape), {}
    for kind in ("none", "selective", "full"):
        model = build(shape, activation_recompute=kind)
        with FlopCounterMode(display=False) as counter:
            compute_loss(model, ids, ids.roll(-1, 1)).loss_sum.backward()  # type: ignore[no-untyped-call]
        flops[kind] = counter.get_total_flops()
    assert flops["none"] == flops["selective"] < flops["full"]


def test_recompute_keeps_less_for_the_backward_pass() -> None:
    ids = draw_ids(LLAMA, batch=4, tokens=64)
    kept: dict[str, int] = {}
    for kind in ("none", "selective", "full"):
        model = build(LLAMA, activation_recompute=kind)
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            compute_loss(model, ids, ids.roll(-1, 1))
        kept[kind] = sum(sizes)
    assert kept["full"] < kept["none"] / 3


@SHAPE_CASES
def test_bfloat16_stays_near_float32(shape: ModelShape) -> None:
    ids = draw_ids(shape)
    expected = compute_loss(build(shape), ids, ids.roll(-1, 1)).loss_sum
    low = compute_loss(build(shape).to(torch.bfloat16), ids, ids.roll(-1, 1)).loss_sum
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = compute_loss(build(shape), ids, ids.roll(-1, 1)).loss_sum
    # 8 bits of mantissa through two layers.
    torch.testing.assert_close(low, expected, rtol=3e-2, atol=0)
    torch.testing.assert_close(mixed, expected, rtol=3e-2, atol=0)


@SHAPE_CASES
def test_initial_weights_have_the_published_spread(shape: ModelShape) -> None:
    shape = change(shape, hidden_size=64, head_dim=16, intermediate_size=256)
    model = GPT(shape)
    initialize_weights(model, seed=0)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert set(parameter.tolist()) == {0.0 if name.endswith("bias") else 1.0}
            continue
        is_residual = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
        expected = shape.initializer_range / (math.sqrt(2 * shape.num_layers) if is_residual else 1.0)
        rows = parameter[: shape.vocab_size] if name in ("embedding.token.weight", "head.weight") else parameter
        assert float(rows.detach().std()) == pytest.approx(expected, rel=0.05), name
    assert model.embedding.token.weight[shape.vocab_size :].count_nonzero() == 0


def test_initial_weights_depend_on_seed_and_name_only() -> None:
    first, again, other = GPT(LLAMA), GPT(change(LLAMA, num_layers=2)), GPT(LLAMA)
    torch.manual_seed(123)
    initialize_weights(first, 0)
    initialize_weights(again, 0)
    initialize_weights(other, 1)
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dim() == 1 or not torch.equal(a, c)
