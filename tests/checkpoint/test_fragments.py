from typing import Any

import pytest
import torch
from torch import nn

from llmtrain.checkpoint import fragments
from llmtrain.errors import CheckpointError
from tests.checkpoint.engines import fake_engine


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters())


def test_replicated_parameters_are_views_of_the_module_and_of_adamw() -> None:
    model = nn.Linear(3, 2)
    engine = fake_engine(model, adamw(model))
    found = {fragment.name: fragment for fragment in fragments.held_fragments(engine)}
    assert {name: (f.placement.shape, f.start, f.numel) for name, f in found.items()} == {
        "weight": ((2, 3), 0, 6),
        "bias": ((2,), 0, 2),
    }
    for box, views in found["weight"].boxes():
        assert (box.offset, box.shape) == ((0, 0), (2, 3))
        views["weights"].fill_(7.0)
        views["exp_avg"].fill_(8.0)
    assert torch.equal(model.weight, torch.full((2, 3), 7.0))
    assert torch.equal(engine.optimizer.state[model.weight]["exp_avg"], torch.full((2, 3), 8.0))


def test_made_optimizer_state_steps_like_a_fresh_one() -> None:
    results = []
    for prepare in (False, True):
        torch.manual_seed(1)
        model = nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        if prepare:
            assert fragments.get_optimizer_steps(fake_engine(model, optimizer)) == {0}
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*results)


def test_compiled_modules_keep_their_plain_names() -> None:
    compiled: Any = torch.compile(nn.Linear(2, 2), backend="eager")
    model = nn.Sequential(compiled, nn.Linear(2, 2))
    engine = fake_engine(model, adamw(model))
    assert list(fragments.parameter_shapes(engine)) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_loss_scaling_is_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"float16 with loss scaling cannot be saved.*parameter_dtype=bfloat16"):
        fragments.check_engine_is_supported(fake_engine(model, adamw(model), fp16=True))


def test_other_optimizers_are_refused_by_name() -> None:
    model = nn.Linear(2, 2)
    engine = fake_engine(model, torch.optim.SGD(model.parameters()))
    with pytest.raises(CheckpointError, match=r"optimizer SGD cannot be saved, only torch\.optim\.AdamW"):
        fragments.check_engine_is_supported(engine)


def test_frozen_parameters_are_refused_by_name() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"parameter bias is frozen"):
        fragments.check_engine_is_supported(fake_engine(model, adamw(model)))


def test_low_precision_parameters_without_masters_are_refused() -> None:
    model = nn.Linear(2, 2).to(torch.bfloat16)
    with pytest.raises(CheckpointError, match=r"weight is torch\.bfloat16 without float32 master.*zero_stage=1"):
        fragments.check_engine_is_supported(fake_engine(model, adamw(model)))
