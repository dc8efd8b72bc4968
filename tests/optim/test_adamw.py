from torch import nn

from llmtrain.config.optimizer import AdamWConfig
from llmtrain.optim.adamw import build_adamw


def test_matrices_decay_and_vectors_do_not() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    decayed, kept = build_adamw(AdamWConfig(learning_rate=0.1, weight_decay=0.3), model).param_groups
    assert decayed["weight_decay"] == 0.3
    assert kept["weight_decay"] == 0.0
    assert {tuple(p.shape) for p in decayed["params"]} == {(5, 4), (3, 4)}
    assert len(kept["params"]) == 3


def test_an_empty_group_is_left_out() -> None:
    assert len(build_adamw(AdamWConfig(learning_rate=0.1), nn.Linear(2, 2, bias=False)).param_groups) == 1
