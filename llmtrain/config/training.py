"""Section `training`: the horizon, what is recomputed, when a run is called diverged."""

from typing import Literal

from llmtrain.config.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section


class TrainingConfig(Section):
    """The loop."""

    train_steps: PositiveInt | None = None
    """Optimizer steps. Exactly one of `train_steps` and `train_tokens` is set."""
    train_tokens: PositiveInt | None = None
    """Tokens; rounded up to whole optimizer steps."""
    log_every_steps: PositiveInt = 10
    """Optimizer steps between two lines of metrics; each holds the mean since the one before."""
    activation_recompute: Literal["none", "selective", "full"] = "none"
    """`full` keeps only the input of each block; `selective` keeps the results of matrix products and attention."""
    loss_chunk_tokens: PositiveInt = 1024
    """Tokens whose logits exist at one time in the loss."""
    z_loss_coefficient: NonNegativeFloat = 0.0
    """Weight of log(Z)^2 (PaLM, Chowdhery et al. 2022, section 5); 0 = off."""
    compile: bool = False
    """Compile each block with `torch.compile` (needs a C++ compiler on CPU, Triton on GPU)."""
    divergence_loss_increase: PositiveFloat | None = 3.0
    """Stop (exit code 17) when the loss stays this many nats above its lowest; null = only when not finite."""
    divergence_patience_steps: PositiveInt = 50
    """Consecutive optimizer steps above that limit before the run stops."""


class PrecisionConfig(Section):
    """Number formats. Master weights and optimizer states are float32 always."""

    parameter_dtype: Literal["float32", "bfloat16"] = "float32"
    """Format of the weights that forward and backward read."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Format of matrix products; bfloat16 over float32 weights means autocast."""
    reduce_dtype: Literal["float32", "bfloat16"] = "float32"
    """Format in which gradients are summed over ranks."""


class EvaluationConfig(Section):
    """Validation loss per source, on documents held out by hash."""

    evaluate_every_steps: PositiveInt | None = None
    """Optimizer steps between evaluations; null = only at the end."""
    sequences_per_source: PositiveInt = 64
    """Windows of each source's validation shards; the same ones every time."""


class SamplingConfig(Section):
    """Text generated during training, to look at."""

    sample_every_steps: PositiveInt | None = None
    """Optimizer steps between samples; null = only at the end."""
    prompts: list[str] = ["The ", "def "]
    """What the model continues."""
    max_new_tokens: PositiveInt = 48
    """Tokens generated per prompt."""
    temperature: NonNegativeFloat = 0.8
    """0 = the most likely token always."""
    top_k: PositiveInt | None = 50
    """Draw from the k most likely tokens; null = from all."""
