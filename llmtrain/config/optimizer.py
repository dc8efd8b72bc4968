"""Section `optimizer`: AdamW."""

from typing import Annotated, Literal

from pydantic import Field

from llmtrain.config.section import NonNegativeFloat, PositiveFloat, Section


class AdamWConfig(Section):
    """AdamW (Loshchilov and Hutter 2019). Matrices and embeddings decay; norms, biases and other vectors do not."""

    name: Literal["adamw"] = "adamw"
    """Method."""
    learning_rate: PositiveFloat
    """Peak learning rate."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """Decay rates of the two moments."""
    epsilon: PositiveFloat = 1e-8
    """Added to the denominator."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay of the decayed group."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this global L2 norm."""
