"""A small odd-sized model in a DeepSpeed engine, for tests on ranks."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from llmtrain.checkpoint.save import Destination, write_snapshot
from llmtrain.checkpoint.snapshot import TrainingState, take_snapshot
from llmtrain.config.checkpoint import CheckpointConfig

GLOBAL_BATCH_SIZE = 8
KEEP_ALL = CheckpointConfig(keep_last=100)


class OddModel(nn.Module):
    """Sizes that no number of ranks divides, tied weights, two groups of decay, vectors and a scalar-like scale."""

    def __init__(self, width: int = 7, extra_names: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 13)
        self.kernel = nn.Parameter(torch.randn(3, 13, 5) / 8)
        self.down = nn.Linear(15, width, bias=False)
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.embedding.weight
        if extra_names:
            self.unused = nn.Parameter(torch.ones(3))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mean loss of predicting each token from itself, which has no solution but has gradients everywhere."""
        hidden = torch.nn.functional.gelu(self.up(self.norm(self.embedding(tokens))))
        mixed = torch.einsum("bti,kij->btkj", hidden, self.kernel).flatten(2)
        logits = self.head(self.down(mixed)).float()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.roll(1, dims=1).flatten())


def fake_engine(model: nn.Module, optimizer: torch.optim.Optimizer, zero_stage: int = 0, fp16: bool = False) -> Any:
    """As much of a DeepSpeed engine as is looked at under ZeRO-0 on one rank."""
    return SimpleNamespace(
        module=model,
        optimizer=optimizer,
        basic_optimizer=optimizer,
        fp16_enabled=lambda: fp16,
        zero_optimization_stage=lambda: zero_stage,
    )


def start_deepspeed() -> Any:
    """Join DeepSpeed to the process group without compiling anything."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    return deepspeed


def build_engine(
    zero_stage: int,
    dtype: str = "fp32",
    seed: int = 0,
    width: int = 7,
    extra_names: bool = False,
    grad_accum_dtype: str | None = None,
) -> Any:
    """A fresh engine; ranks agree on the weights through the seed."""
    deepspeed = start_deepspeed()
    torch.manual_seed(seed)
    model = OddModel(width, extra_names)
    if dtype == "bf16":
        model.to(torch.bfloat16)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), fused=True),
        config={
            "train_batch_size": GLOBAL_BATCH_SIZE,
            "train_micro_batch_size_per_gpu": GLOBAL_BATCH_SIZE // dist.get_world_size() // 2,
            "gradient_accumulation_steps": 2,
            "gradient_clipping": 1.0,
            "bf16": {"enabled": dtype == "bf16"},
            "zero_optimization": {"stage": zero_stage, "overlap_comm": False},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": None,
            "data_types": {"grad_accum_dtype": grad_accum_dtype},
        },
        dist_init_required=False,
    )
    return engine


def train(engine: Any, first_step: int, last_step: int) -> list[float]:
    """Steps [first, last): data is a function of the step alone."""
    losses = []
    rank, size = dist.get_rank(), dist.get_world_size()
    for step in range(first_step, last_step):
        tokens = torch.randint(0, 11, (GLOBAL_BATCH_SIZE, 6), generator=torch.Generator().manual_seed(step))
        for micro_batch in tokens.chunk(2):
            loss = engine(micro_batch.chunk(size)[rank])
            engine.backward(loss)
            engine.step()
            losses.append(loss.item())
    return losses


def save(folder: Path, engine: Any, step: int, parent: str | None = None, **told: Any) -> Path:
    """Save with everything kept."""
    snapshot = take_snapshot(engine, TrainingState(step, step * GLOBAL_BATCH_SIZE, **told))
    return write_snapshot(snapshot, Destination(folder, {"model": "odd"}, KEEP_ALL, parent))


def full_weights(engine: Any) -> dict[str, torch.Tensor]:
    """Whole parameters as forward reads them, gathered under ZeRO-3."""
    import deepspeed

    parameters = dict(engine.module.named_parameters())
    with deepspeed.zero.GatheredParameters(list(parameters.values()), enabled=engine.zero_optimization_stage() == 3):
        return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def full_states(engine: Any) -> dict[str, torch.Tensor]:
    """Whole float32 master weights and moments, through DeepSpeed's own gathering, to compare with ours."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    states = {}
    if engine.zero_optimization_stage() in (1, 2):
        # DeepSpeed links the moments after the first group's first step and so misses those of the other groups.
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
    for name, parameter in engine.module.named_parameters():
        if engine.zero_optimization_stage() == 0:
            states[f"weights/{name}"] = parameter.detach().clone()
            for key in ("exp_avg", "exp_avg_sq"):
                states[f"{key}/{name}"] = engine.optimizer.state[parameter][key].clone()
            continue
        states[f"weights/{name}"] = safe_get_full_fp32_param(parameter).clone()
        for key in ("exp_avg", "exp_avg_sq"):
            states[f"{key}/{name}"] = safe_get_full_optimizer_state(parameter, key).clone()
    return states
