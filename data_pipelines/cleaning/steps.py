"""From section `corpus.steps` to functions, and a document through all of them.

A step is called with a `Subject` and answers why the document is dropped, or None. It may change the subject.
"""

from collections.abc import Callable, Sequence

from data_pipelines.cleaning.bounds import Bounds
from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import BoundsStep, StepConfig

Step = Callable[[Subject], str | None]


def build_steps(configs: Sequence[StepConfig]) -> list[tuple[str, Step]]:
    """Each step with its name, in order."""
    return [(config.name, _build_step(config)) for config in configs]


def _build_step(config: StepConfig) -> Step:
    match config:
        case BoundsStep():
            return Bounds(config)
