"""Section `watchdog`: how long each phase of a run may take before it counts as a hang."""

from llmtrain.config.section import PositiveFloat, Section


class WatchdogConfig(Section):
    """A rank that stays longer in a phase writes the stacks of its threads and ends the run with exit code 124."""

    start_seconds: PositiveFloat | None = 1800.0
    """From the start of a rank to its first step, which may take as long again; ranks must meet in half of it.
    null = no limit, as for all keys of this section."""
    step_seconds: PositiveFloat | None = 480.0
    """One optimizer step; below `parallel.communication_timeout_seconds`, every rank can say where it stands."""
    evaluate_seconds: PositiveFloat | None = 900.0
    """One evaluation."""
    sample_seconds: PositiveFloat | None = 900.0
    """All text samples of one step."""
    save_seconds: PositiveFloat | None = 1800.0
    """One checkpoint."""
    end_seconds: PositiveFloat | None = 1800.0
    """From the last step to the end of the rank."""
