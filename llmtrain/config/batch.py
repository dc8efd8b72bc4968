"""Section `batch`: how many tokens per sequence, sequences per forward, sequences per step."""

from llmtrain.config.section import PositiveInt, Section


class BatchConfig(Section):
    """Batch arithmetic. Accumulation steps are derived: global / (micro * data-parallel size)."""

    sequence_length: PositiveInt
    """Tokens per sequence."""
    micro_batch_size: PositiveInt
    """Sequences per data-parallel rank per forward."""
    global_batch_size: PositiveInt
    """Sequences per optimizer step over all ranks."""
