"""Everything that is foretold of a run on a cluster: memory, time, interruptions, cost.

In: `Config`, `Plan`, `ClusterConfig`. Out: `Estimate`.
"""

from dataclasses import dataclass

from llmtrain.config.cluster import ClusterConfig
from llmtrain.config.root import Config
from llmtrain.plan.build import Plan
from llmtrain.plan.cost import Cost, compute_cost
from llmtrain.plan.memory import RankMemory, Verdict, compute_checkpoint_bytes, judge, list_rank_memories
from llmtrain.plan.reading import Reading, compute_reading
from llmtrain.plan.reliability import Reliability, compute_reliability
from llmtrain.plan.step_time import StepTime, compute_model_flops_utilization, compute_step_time
from llmtrain.plan.workload import Workload, build_workload

_ASYNCHRONOUS_STALL = 0.05
"""Share of a save for which training stands still while the state is copied to host memory; assumed."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take, if the description of the cluster is right."""

    plan: Plan
    work: Workload
    cluster: ClusterConfig
    memories: tuple[RankMemory, ...]
    """Of each pipeline rank."""
    step: StepTime
    reading: Reading
    checkpoint_bytes: int
    save_every_steps: int
    """As configured; all steps of the run where only the end is saved."""
    reliability: Reliability
    cost: Cost

    @property
    def worst(self) -> RankMemory:
        """Memory of the pipeline rank that needs most."""
        return max(self.memories, key=lambda memory: memory.total)

    @property
    def verdict(self) -> Verdict:
        """Whether the rank that needs most fits."""
        return judge(self.worst, self.cluster)

    @property
    def tokens_per_second(self) -> float:
        """Of all ranks, while nothing interrupts."""
        return self.plan.tokens_per_step / self.step.total

    @property
    def model_flops_utilization(self) -> float:
        """MFU with causal attention, a fraction."""
        return compute_model_flops_utilization(self.work, self.cluster, self.step.total)

    @property
    def compute_seconds(self) -> float:
        """All steps, without interruptions and saving."""
        return self.plan.train_steps * self.step.total

    @property
    def train_seconds(self) -> float:
        """From start to end, interruptions included."""
        return self.reliability.train_seconds


def build_estimate(config: Config, plan: Plan, cluster: ClusterConfig) -> Estimate:
    """Foretell a run.

    Args:
        config: the resolved configuration.
        plan: its derived numbers.
        cluster: where it is to run.
    """
    work = build_workload(config, plan)
    step = compute_step_time(work, cluster)
    reliability = build_reliability(config, cluster, work, plan.train_steps, step.total)
    return Estimate(
        plan=plan,
        work=work,
        cluster=cluster,
        memories=tuple(list_rank_memories(work, is_cpu=cluster.device.kind == "cpu")),
        step=step,
        reading=compute_reading(config, plan, step.total),
        checkpoint_bytes=compute_checkpoint_bytes(plan.shape),
        save_every_steps=choose_save_interval(config, plan.train_steps),
        reliability=reliability,
        cost=compute_cost(cluster.cost, plan.world_size, reliability.train_seconds),
    )


def build_reliability(
    config: Config, cluster: ClusterConfig, work: Workload, train_steps: int, step_seconds: float
) -> Reliability:
    """What interruptions do to a run that saves as it is configured to.

    Args:
        config: interval of checkpoints, and whether they are written beside training.
        cluster: where it is to run.
        work: the workload of a step.
        train_steps: of the run.
        step_seconds: of one step.
    """
    return compute_reliability(
        cluster,
        work.world_size,
        train_steps * step_seconds,
        choose_save_interval(config, train_steps) * step_seconds,
        compute_checkpoint_bytes(work.shape),
        _ASYNCHRONOUS_STALL if config.checkpoint.asynchronous else 1.0,
    )


def choose_save_interval(config: Config, train_steps: int) -> int:
    """Optimizer steps between checkpoints; `train_steps` where only the end is saved."""
    return min(config.checkpoint.save_every_steps or train_steps, train_steps)
