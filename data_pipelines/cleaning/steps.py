"""From section `corpus.steps` to functions, and what their results depend on.

A step is called with a `Subject` and answers why the document is dropped, or None. It may change the subject.
Its answer depends on the subject and on its configuration alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

from data_pipelines.cleaning.bounds import Bounds
from data_pipelines.cleaning.c4 import C4Quality
from data_pipelines.cleaning.code import CodeQuality
from data_pipelines.cleaning.decontaminate import Decontaminate, describe_evaluation_files
from data_pipelines.cleaning.fineweb import FinewebQuality
from data_pipelines.cleaning.gopher import GopherQuality, GopherRepetition
from data_pipelines.cleaning.language import IdentifyLanguage
from data_pipelines.cleaning.personal_data import MaskPersonalData
from data_pipelines.cleaning.subject import Subject
from data_pipelines.cleaning.unicode import RepairUnicode
from llmtrain.config import cleaning
from llmtrain.config.cleaning import StepConfig

Step = Callable[[Subject], str | None]


def build_steps(configs: Sequence[StepConfig]) -> list[tuple[str, Step]]:
    """Each step with its name, in order.

    Raises:
        ConfigError: a language that is not known.
        DataError: an evaluation set is missing or damaged.
    """
    return [(config.name, _build_step(config)) for config in configs]


def describe_step(config: StepConfig) -> dict[str, Any]:
    """All that the result of a step depends on: its configuration, and the content of files it names.

    Raises:
        DataError: an evaluation set is missing.
    """
    described = config.model_dump()
    if isinstance(config, cleaning.DecontaminateStep):
        described["contents"] = describe_evaluation_files(config.against)
    return described


def _build_step(config: StepConfig) -> Step:
    match config:
        case cleaning.BoundsStep():
            return Bounds(config)
        case cleaning.RepairUnicodeStep():
            return RepairUnicode()
        case cleaning.IdentifyLanguageStep():
            return IdentifyLanguage(config)
        case cleaning.GopherQualityStep():
            return GopherQuality(config)
        case cleaning.GopherRepetitionStep():
            return GopherRepetition(config)
        case cleaning.C4QualityStep():
            return C4Quality(config)
        case cleaning.FinewebQualityStep():
            return FinewebQuality(config)
        case cleaning.CodeQualityStep():
            return CodeQuality(config)
        case cleaning.MaskPersonalDataStep():
            return MaskPersonalData(config)
        case cleaning.DecontaminateStep():
            return Decontaminate(config)
