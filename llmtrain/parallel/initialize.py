"""A network on its device, compiled and in its number format if asked for, as a DeepSpeed engine."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from llmtrain.config.root import Config
from llmtrain.optim.adamw import build_adamw
from llmtrain.parallel.deepspeed_config import build_deepspeed_config
from llmtrain.plan.build import Plan


def initialize_deepspeed(
    module: nn.Module, blocks: Iterable[nn.Module], config: Config, plan: Plan, device: torch.device, **options: Any
) -> Any:
    """Hand a network to DeepSpeed.

    Args:
        module: what this rank holds of the network.
        blocks: its transformer blocks, compiled one by one when `training.compile` is set.
        config: the resolved configuration.
        plan: batch arithmetic.
        device: where it goes.
        options: more arguments of `deepspeed.initialize`.

    Returns:
        DeepSpeed's engine.
    """
    import deepspeed  # its import reads DS_ACCELERATOR, which start_distributed sets
    from deepspeed.runtime import torch_autocast
    from deepspeed.utils import groups

    # ZeRO++'s groups of an engine before this one: DeepSpeed would share out these weights by them, too.
    groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None
    # Autocast of an engine before this one: ZeRO would sum these gradients in the format of their weights.
    torch_autocast.TORCH_AUTOCAST_INITIALIZED = False
    module.to(device)
    if config.training.compile:
        for block in blocks:
            block.compile()
    if config.precision.parameter_dtype == "bfloat16":
        module.to(torch.bfloat16)
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=build_adamw(config.optimizer, module),
        config=build_deepspeed_config(config, plan, sum(parameter.numel() for parameter in module.parameters())),
        dist_init_required=False,
        **options,
    )
    return engine
