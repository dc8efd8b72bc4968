"""Names of metrics, in one place: `group/name`, two levels, the unit in the name.

MLflow draws one section per group, in alphabetical order; sources stand side by side inside a group.
A group of one would take a row of the page for itself.
"""

TRAIN_LOSS = "train/loss"
GRAD_NORM = "train/grad_norm"
LEARNING_RATE = "train/learning_rate"
TRAIN_TOKENS = "train/tokens"
VALIDATION_LOSS = "validation/loss"
TOKENS_PER_SECOND = "perf/tokens_per_second"
MODEL_FLOPS_UTILIZATION = "perf/model_flops_utilization"
STEP_SECONDS = "perf/step_seconds"
DATA_WAIT_FRACTION = "perf/data_wait_fraction"
PEAK_MEMORY_GIB = "perf/peak_memory_gib"
PIPELINE_BUBBLE_FRACTION = "perf/pipeline_bubble_fraction"
SAVE_SECONDS = "perf/checkpoint_save_seconds"
SAVE_STALL_SECONDS = "perf/checkpoint_stall_seconds"


def plan_of(name: str, kind: str) -> str:
    """A number of the plan; `kind` is planned, measured or error (planned over measured, less 1)."""
    return f"plan/{name}_{kind}"


def train_loss_of(source: str) -> str:
    """Training loss of one source, nats per token."""
    return f"data/loss_{source}"


def epoch_of(source: str) -> str:
    """How often a source has been read."""
    return f"data/epoch_{source}"


def validation_loss_of(source: str) -> str:
    """Validation loss of one source, nats per token."""
    return f"validation/loss_{source}"
