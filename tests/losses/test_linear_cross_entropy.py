import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.losses.linear_cross_entropy import linear_cross_entropy

TOKENS, HIDDEN, VOCAB, PADDED = 37, 16, 50, 64


def make_inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(PADDED, HIDDEN, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    labels = torch.randint(0, VOCAB, (TOKENS,), generator=generator)
    labels[::5] = IGNORE_INDEX
    return hidden, weight, labels


def reference(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, z_loss_coefficient: float
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = (hidden @ weight[:VOCAB].T).to(torch.promote_types(hidden.dtype, torch.float32))
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")
    log_z = logits.logsumexp(1)[labels != IGNORE_INDEX]
    return losses.sum() + z_loss_coefficient * log_z.square().sum(), losses


@pytest.mark.parametrize("chunk_tokens", [1, 8, 37, 1000])
@pytest.mark.parametrize("z_loss_coefficient", [0.0, 0.01])
def test_losses_and_gradients_are_those_of_full_logits(chunk_tokens: int, z_loss_coefficient: float) -> None:
    hidden, weight, labels = make_inputs()
    settings = {"vocab_size": VOCAB, "chunk_tokens": chunk_tokens, "z_loss_coefficient": z_loss_coefficient}
    loss_sum, losses = linear_cross_entropy(hidden, weight, labels, **settings)  # type: ignore[arg-type]
    (3 * loss_sum).backward()  # type: ignore[no-untyped-call]
    found = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    expected_sum, expected = reference(hidden, weight, labels, z_loss_coefficient)
    (3 * expected_sum).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss_sum, expected_sum)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(found, (hidden.grad, weight.grad))


def test_padded_rows_get_no_probability_and_no_gradient() -> None:
    hidden, weight, labels = make_inputs()
    loss, _ = linear_cross_entropy(hidden, weight, labels, vocab_size=VOCAB, chunk_tokens=8)
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert torch.equal(weight.grad[VOCAB:], torch.zeros(PADDED - VOCAB, HIDDEN, dtype=torch.float64))
    with torch.no_grad():
        weight[VOCAB:] = 100.0
    again, _ = linear_cross_entropy(hidden, weight, labels, vocab_size=VOCAB, chunk_tokens=8)
    torch.testing.assert_close(again, loss)


def test_a_batch_without_targets_costs_nothing() -> None:
    hidden, weight, labels = make_inputs()
    loss, losses = linear_cross_entropy(
        hidden, weight, torch.full_like(labels, IGNORE_INDEX), vocab_size=VOCAB, chunk_tokens=8
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert losses.count_nonzero() == 0
    assert hidden.grad is not None
    assert hidden.grad.count_nonzero() == 0


@pytest.mark.parametrize("kind", ["parameters", "autocast"])
def test_bfloat16_sums_in_float32(kind: str) -> None:
    expected_sum, _ = reference(*make_inputs(torch.float32), 0.0)
    hidden, weight, labels = make_inputs(torch.bfloat16 if kind == "parameters" else torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
        loss, losses = linear_cross_entropy(hidden, weight, labels, vocab_size=VOCAB, chunk_tokens=8)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == losses.dtype == torch.float32
    assert hidden.grad is not None
    assert hidden.grad.dtype == hidden.dtype
    # Products of bfloat16 carry 8 bits.
    torch.testing.assert_close(loss, expected_sum, rtol=1e-2, atol=0)


def test_without_gradients_none_are_made() -> None:
    hidden, weight, labels = make_inputs()
    with torch.no_grad():
        loss, _ = linear_cross_entropy(hidden, weight, labels, vocab_size=VOCAB, chunk_tokens=8)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, reference(hidden, weight, labels, 0.0)[0].detach())


def count_flops(enabled: bool) -> int:
    hidden, weight, labels = make_inputs()
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(enabled):
        linear_cross_entropy(hidden, weight, labels, vocab_size=VOCAB, chunk_tokens=8)
    return int(counter.get_total_flops())


def test_evaluation_makes_no_gradients() -> None:
    one_product = 2 * TOKENS * PADDED * HIDDEN
    assert count_flops(enabled=False) == one_product
    assert count_flops(enabled=True) > one_product


@pytest.mark.parametrize("z_loss_coefficient", [0.0, 0.01])
def test_gradients_are_those_of_finite_differences(z_loss_coefficient: float) -> None:
    hidden, weight, labels = make_inputs()

    def compute(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        settings = {"vocab_size": 5, "chunk_tokens": 3, "z_loss_coefficient": z_loss_coefficient}
        return linear_cross_entropy(hidden, weight, labels[:7] % 5, **settings)[0]  # type: ignore[arg-type]

    inputs = hidden[:7, :4].detach().requires_grad_(), weight[:8, :4].detach().requires_grad_()
    assert torch.autograd.gradcheck(compute, inputs)


def test_hidden_states_may_lie_anyhow() -> None:
    hidden, weight, labels = make_inputs()
    turned = hidden.detach().t().contiguous().t().requires_grad_()
    for tensor in (hidden, turned):
        loss, _ = linear_cross_entropy(tensor, weight, labels, vocab_size=VOCAB, chunk_tokens=8)
        loss.backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert turned.grad is not None
    torch.testing.assert_close(turned.grad, hidden.grad)
