"""Policy and value model as one module, so that one wrapper of DDP or ZeRO and one optimizer hold both.

Shapes: B rows, P prompt tokens (padded on the left), R response tokens, T = P + R.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Sequences:
    """Prompts and responses of some rows."""

    ids_BT: torch.Tensor
    attention_BT: torch.Tensor
    """1 at tokens, 0 at padding on both sides."""
    response_tokens: int
    """R."""

    @property
    def positions(self) -> torch.Tensor:
        """Position of each token in its text."""
        return (self.attention_BT.cumsum(1) - 1).clamp(min=0)

    @property
    def responses(self) -> torch.Tensor:
        """Ids of the responses."""
        return self.ids_BT[:, -self.response_tokens :]


class PolicyAndValue(nn.Module):
    """Computes what an update needs of both models.

    Args:
        policy: a causal model of `transformers`.
        value_model: a model of sequence classification with one label, read at every token; None = values are zero.
    """

    def __init__(self, policy: Any, value_model: Any) -> None:
        super().__init__()
        self.policy, self.value_model = policy, value_model

    def forward(
        self, ids_BT: torch.Tensor, attention_BT: torch.Tensor, response_tokens: int, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probability of each response token, entropy where it is chosen, and the value before it; (B, R) each."""
        rows = Sequences(ids_BT, attention_BT, response_tokens)
        logprobs, entropy = compute_logprobs(self.policy, rows, temperature)
        values = compute_values(self.value_model, rows) if self.value_model is not None else torch.zeros_like(logprobs)
        return logprobs, entropy, values

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether activations are recomputed; TRL asks before it generates."""
        return bool(self.policy.is_gradient_checkpointing)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations of both."""
        for model in self._models:
            model.gradient_checkpointing_disable()

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Recompute activations of both."""
        for model in self._models:
            model.gradient_checkpointing_enable(**options)

    @property
    def _models(self) -> list[Any]:
        return [model for model in (self.policy, self.value_model) if model is not None]


def compute_logprobs(model: Any, rows: Sequences, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the response tokens, and entropies of their distributions; (B, R), float32."""
    output = model(
        input_ids=rows.ids_BT,
        attention_mask=rows.attention_BT,
        position_ids=rows.positions,
        use_cache=False,
        logits_to_keep=rows.response_tokens + 1,
    )
    logprobs_BRV = torch.log_softmax(output.logits[:, :-1].float() / temperature, dim=-1)
    chosen_BR = logprobs_BRV.gather(2, rows.responses[:, :, None])[:, :, 0]
    with torch.no_grad():
        entropy_BR = -(logprobs_BRV.exp() * logprobs_BRV).sum(-1)
    return chosen_BR, entropy_BR


def compute_values(model: Any, rows: Sequences) -> torch.Tensor:
    """Value before each response token; (B, R), float32."""
    trunk = getattr(model, model.base_model_prefix)
    hidden_BTD = trunk(
        input_ids=rows.ids_BT, attention_mask=rows.attention_BT, position_ids=rows.positions, use_cache=False
    ).last_hidden_state
    values: torch.Tensor = model.score(hidden_BTD[:, -rows.response_tokens - 1 : -1])[:, :, 0].float()
    return values


def join_rows(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> Sequences:
    """Rows of different lengths as one batch, prompts padded on the left and responses on the right."""
    left, right = max(map(len, prompts)), max(map(len, responses))
    ids, attention = [], []
    for prompt, response in zip(prompts, responses, strict=True):
        before, after = left - len(prompt), right - len(response)
        ids.append([pad_id] * before + [*prompt, *response] + [pad_id] * after)
        attention.append([0] * before + [1] * (len(prompt) + len(response)) + [0] * after)
    return Sequences(torch.tensor(ids, device=device), torch.tensor(attention, device=device), right)
