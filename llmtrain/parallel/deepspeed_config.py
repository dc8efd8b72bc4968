"""DeepSpeed's JSON, generated from ours. No user text passes through: DeepSpeed ignores misspelt keys in silence."""

from typing import Any

import torch

from llmtrain.config.parallel import ParallelConfig
from llmtrain.config.root import Config
from llmtrain.plan.build import Plan
from llmtrain.plan.moments import REDUCE_BUCKET_ELEMENTS


def build_deepspeed_config(config: Config, plan: Plan, held_elements: int) -> dict[str, Any]:
    """The dictionary given to `deepspeed.initialize`.

    Args:
        config: the resolved configuration.
        plan: batch arithmetic.
        held_elements: of the parameters on this rank, before ZeRO shares them.
    """
    precision = config.precision
    short = {"float32": "fp32", "bfloat16": "bf16"}
    result: dict[str, Any] = {
        "train_batch_size": plan.global_batch_size,
        "train_micro_batch_size_per_gpu": plan.micro_batch_size,
        "gradient_accumulation_steps": plan.gradient_accumulation_steps,
        # Absent means 1.0. Stage 0 keeps no norm for us to log, so there the engine clips.
        "gradient_clipping": config.optimizer.max_grad_norm if plan.zero_stage > 0 else 0.0,
        "zero_optimization": _build_zero_section(config.parallel, held_elements),
        "zero_allow_untested_optimizer": True,
        # Offloading updates with torch's AdamW too; DeepSpeed's own one for the host would be compiled at start.
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": precision.parameter_dtype == "bfloat16"},
        "communication_data_type": short[precision.reduce_dtype],
        # Hidden states that are shared along the sequence must not be cut again on their way to the next stage.
        "pipeline": {"pipe_partitioned": False, "grad_partitioned": False},
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
    if precision.parameter_dtype == "float32" and precision.compute_dtype == "bfloat16":
        result["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
        if precision.reduce_dtype == "float32":
            # Modules named here would have their gradients summed in bfloat16.
            result["torch_autocast"]["lower_precision_safe_modules"] = []
    return result


def _build_zero_section(parallel: ParallelConfig, held_elements: int) -> dict[str, Any]:
    is_overlapped = parallel.overlap_communication and parallel.pipeline_parallel_size == 1
    section: dict[str, Any] = {
        "stage": parallel.zero_stage,
        "overlap_comm": is_overlapped,
        # Allocated whole, twice where communication is overlapped; more than all gradients would never be filled.
        "reduce_bucket_size": min(REDUCE_BUCKET_ELEMENTS, held_elements),
    }
    if parallel.offload_optimizer:
        section["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if parallel.zero_stage == 3:
        section["stage3_param_persistence_threshold"] = parallel.zero3_persistent_parameters_below
    if parallel.hierarchical_partition_size is not None:
        section["zero_hpz_partition_size"] = parallel.hierarchical_partition_size
    return section
