"""Stages of a whole run, in order."""

from typing import Literal, get_args

PipelineStage = Literal["data", "pretrain", "export", "sft", "reward", "ppo", "report"]
STAGES: tuple[PipelineStage, ...] = get_args(PipelineStage)
PosttrainingStage = Literal["sft", "reward", "ppo"]
POSTTRAINING: tuple[PosttrainingStage, ...] = get_args(PosttrainingStage)
