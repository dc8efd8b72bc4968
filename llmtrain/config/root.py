"""The whole configuration of a run: one section per concept."""

from llmtrain.config.batch import BatchConfig
from llmtrain.config.checkpoint import CheckpointConfig
from llmtrain.config.corpus import CorpusConfig
from llmtrain.config.data import DataConfig
from llmtrain.config.instructions import InstructionsConfig
from llmtrain.config.model import ModelConfig
from llmtrain.config.optimizer import AdamWConfig
from llmtrain.config.parallel import ParallelConfig
from llmtrain.config.ppo import PpoConfig
from llmtrain.config.reward import RewardConfig
from llmtrain.config.run import RunConfig
from llmtrain.config.schedule import ScheduleConfig
from llmtrain.config.section import Section
from llmtrain.config.sft import SftConfig
from llmtrain.config.tracking import TrackingConfig
from llmtrain.config.training import EvaluationConfig, PrecisionConfig, SamplingConfig, TrainingConfig
from llmtrain.config.watchdog import WatchdogConfig


class PosttrainingConfig(Section):
    """Post-training of a model that is there already: what the commands sft, reward and ppo need."""

    run: RunConfig
    """Name, folder and seed."""
    sft: SftConfig | None = None
    """Supervised fine-tuning; null = no such stage."""
    reward: RewardConfig | None = None
    """Reward model; null = no such stage."""
    ppo: PpoConfig | None = None
    """Reinforcement learning; null = no such stage."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""


class Config(PosttrainingConfig):
    """One run, from raw text to a trained model. One YAML file holds it; line 1 is the command that runs it."""

    corpus: CorpusConfig | None = None
    """Raw text to shards; null when `data.folder` is there already."""
    instructions: InstructionsConfig | None = None
    """Records for post-training, made from the documents of `corpus`; null = none are made."""
    data: DataConfig
    """The mixture."""
    batch: BatchConfig
    """Sequence length and batch sizes."""
    model: ModelConfig
    """The network."""
    optimizer: AdamWConfig
    """AdamW."""
    schedule: ScheduleConfig
    """Learning rate over steps."""
    training: TrainingConfig
    """The loop."""
    precision: PrecisionConfig = PrecisionConfig()
    """Number formats."""
    parallel: ParallelConfig = ParallelConfig()
    """Ranks."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Validation."""
    sampling: SamplingConfig = SamplingConfig()
    """Text samples."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Saving and resuming."""
    watchdog: WatchdogConfig = WatchdogConfig()
    """Hangs."""
