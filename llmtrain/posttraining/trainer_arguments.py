"""Our section -> the arguments that `transformers` and DeepSpeed understand."""

import os
from pathlib import Path
from typing import Any

import torch

from llmtrain.config.stage_training import StageTraining
from llmtrain.errors import ConfigError
from llmtrain.posttraining.batch_sizes import count_accumulation
from llmtrain.process.world import World

_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def build_arguments(name: str, stage: StageTraining, folder: Path, seed: int, world: World) -> dict[str, Any]:
    """Arguments that every trainer of TRL takes.

    Args:
        name: of the section, for messages.
        stage: the section.
        folder: where checkpoints go.
        seed: of the order of records.
        world: this process.
    """
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": stage.micro_batch_size,
        "gradient_accumulation_steps": count_accumulation(name, stage, world.world_size),
        "learning_rate": stage.learning_rate,
        "adam_beta1": stage.betas[0],
        "adam_beta2": stage.betas[1],
        "adam_epsilon": stage.epsilon,
        "weight_decay": stage.weight_decay,
        "max_grad_norm": stage.max_grad_norm,
        "lr_scheduler_type": _SCHEDULES[stage.schedule],
        "warmup_steps": stage.warmup_steps,
        "logging_steps": stage.log_every_steps,
        "save_strategy": "no" if stage.save_every_steps is None else "steps",
        "save_steps": stage.save_every_steps or 1,
        "save_total_limit": None,  # checkpoints are counted when they are whole
        "eval_strategy": "no",
        "seed": seed,
        "data_seed": seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": has_autocast_of_accelerate(stage),
        "gradient_checkpointing": stage.activation_recompute,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "ddp_find_unused_parameters": False,
        "report_to": "none",
        "disable_tqdm": True,
        "push_to_hub": False,
    }


def build_deepspeed(name: str, stage: StageTraining, world_size: int) -> dict[str, Any] | None:
    """DeepSpeed's configuration; None without ZeRO.

    Args:
        name: of the section, for messages.
        stage: the section.
        world_size: ranks.
    """
    if stage.zero_stage == 0:
        return None
    zero: dict[str, Any] = {"stage": stage.zero_stage}
    if stage.zero_stage == 3:
        # Without it models would be saved in pieces that nothing else reads.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    config = {
        "train_micro_batch_size_per_gpu": stage.micro_batch_size,
        "gradient_accumulation_steps": count_accumulation(name, stage, world_size),
        "gradient_clipping": stage.max_grad_norm,
        "zero_optimization": zero,
        # torch's AdamW, as without ZeRO: DeepSpeed's own would be compiled at start.
        "zero_allow_untested_optimizer": True,
    }
    if stage.compute_dtype == "bfloat16":
        # Modules named in the list would have their gradients summed in bfloat16.
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return config


def has_autocast_of_accelerate(stage: StageTraining) -> bool:
    """Whether accelerate, not DeepSpeed, casts: for ZeRO it would turn the weights themselves into bfloat16."""
    return stage.compute_dtype == "bfloat16" and stage.zero_stage == 0


def find_max_length(name: str, wanted: int | None, model: Any) -> int:
    """Tokens of one example at most.

    Raises:
        ConfigError: more are wanted than the model has positions, or neither says how many.
    """
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        if wanted is None:
            raise ConfigError(
                f"{name}.max_length: the configuration of {type(model).__name__} does not say how many tokens it reads "
                f"(max_position_embeddings). Set {name}.max_length."
            )
        return wanted
    if wanted is not None and wanted > positions:
        raise ConfigError(
            f"{name}.max_length = {wanted}: the model reads {positions} tokens. Choose at most {positions}."
        )
    return wanted or positions


def announce_world(world: World, stage: StageTraining) -> None:
    """Tell accelerate, which reads the environment, what this process is; before anything of it is made."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # The configuration alone decides: a variable of the shell would change number formats or ZeRO in silence.
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if has_autocast_of_accelerate(stage) else "no"
    if world.world_size == 1 and stage.zero_stage == 0:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
        return
    values = {
        "RANK": world.rank,
        "WORLD_SIZE": world.world_size,
        "LOCAL_RANK": world.local_rank,
        "LOCAL_WORLD_SIZE": world.local_world_size,
        "MASTER_ADDR": world.master_address,
        "MASTER_PORT": world.master_port,
    }
    os.environ.update({name: str(value) for name, value in values.items()})
