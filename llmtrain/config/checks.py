"""What no single key can tell: keys that contradict each other. All contradictions are found at once."""

from collections.abc import Iterator

from llmtrain.config.explain import find_origin
from llmtrain.config.model import LlamaModelConfig
from llmtrain.config.posttraining_checks import check_posttraining
from llmtrain.config.root import Config, PosttrainingConfig
from llmtrain.config.yaml_reader import Origins


def find_contradictions(config: PosttrainingConfig, origins: Origins) -> list[str]:
    """One line for each contradiction between keys, with the place of the key to change."""
    found = list(check_posttraining(config))
    if isinstance(config, Config):
        found += [line for check in _CHECKS_OF_PRETRAINING for line in check(config)]
    return [f"{find_origin(tuple(key.split('.')), origins)}: {message}" for key, message in found]


def divisors(number: int) -> str:
    """All divisors, for messages: `1, 2, 4 or 8`; the largest few when there are many."""
    found = [str(n) for n in range(1, number + 1) if number % n == 0]
    if len(found) > 8:
        found = [*found[:4], "...", *found[-3:]]
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"


def _check_horizon(config: Config) -> Iterator[tuple[str, str]]:
    steps, tokens = config.training.train_steps, config.training.train_tokens
    if (steps is None) == (tokens is None):
        yield (
            "training",
            f"'training.train_steps' = {steps} and 'training.train_tokens' = {tokens}: set exactly one of them.",
        )


def _check_batch(config: Config) -> Iterator[tuple[str, str]]:
    batch = config.batch
    if batch.global_batch_size % batch.micro_batch_size:
        yield (
            "batch.micro_batch_size",
            f"'batch.micro_batch_size' = {batch.micro_batch_size} does not divide 'batch.global_batch_size' = "
            f"{batch.global_batch_size}. Choose {divisors(batch.global_batch_size)}.",
        )


def _check_heads(config: Config) -> Iterator[tuple[str, str]]:
    model = config.model
    if model.hidden_size % model.num_attention_heads:
        yield (
            "model.num_attention_heads",
            f"'model.num_attention_heads' = {model.num_attention_heads} does not divide 'model.hidden_size' = "
            f"{model.hidden_size}. Choose {divisors(model.hidden_size)}.",
        )
    elif isinstance(model, LlamaModelConfig) and (model.hidden_size // model.num_attention_heads) % 2:
        yield (
            "model.num_attention_heads",
            f"'model.hidden_size' / 'model.num_attention_heads' = {model.hidden_size // model.num_attention_heads} is "
            "odd; rotary positions turn pairs of dimensions. Choose sizes with an even quotient.",
        )
    key_value_heads = getattr(model, "num_key_value_heads", None) or model.num_attention_heads
    if model.num_attention_heads % key_value_heads:
        yield (
            "model.num_key_value_heads",
            f"'model.num_key_value_heads' = {key_value_heads} does not divide 'model.num_attention_heads' = "
            f"{model.num_attention_heads}. Choose {divisors(model.num_attention_heads)}.",
        )


def _check_schedule(config: Config) -> Iterator[tuple[str, str]]:
    schedule, steps = config.schedule, config.training.train_steps
    minimum = getattr(schedule, "min_learning_rate", 0.0)
    if minimum > config.optimizer.learning_rate:
        yield (
            "schedule.min_learning_rate",
            f"'schedule.min_learning_rate' = {minimum} is above 'optimizer.learning_rate' = "
            f"{config.optimizer.learning_rate}. Choose a smaller one.",
        )
    decay = getattr(schedule, "decay_steps", None) or 0
    if steps is not None and schedule.warmup_steps + decay > steps:
        yield (
            "schedule.warmup_steps",
            f"'schedule.warmup_steps' = {schedule.warmup_steps} and decay_steps = {decay} exceed "
            f"'training.train_steps' = {steps}. Make their sum at most {steps}.",
        )


def _check_precision(config: Config) -> Iterator[tuple[str, str]]:
    precision = config.precision
    if precision.parameter_dtype == "bfloat16" and precision.compute_dtype == "float32":
        yield (
            "precision.compute_dtype",
            "'precision.parameter_dtype' = 'bfloat16' with 'precision.compute_dtype' = 'float32': weights cannot be "
            "coarser than the arithmetic. Set both to bfloat16, or parameter_dtype to float32.",
        )
    if precision.parameter_dtype == "bfloat16" and config.parallel.zero_stage == 0:
        yield (
            "precision.parameter_dtype",
            "'precision.parameter_dtype' = 'bfloat16' needs float32 master weights, which ZeRO keeps: "
            "set 'parallel.zero_stage' to 1, 2 or 3, or 'precision.parameter_dtype' to 'float32'.",
        )


def _check_parallel(config: Config) -> Iterator[tuple[str, str]]:
    parallel, model = config.parallel, config.model
    tensor, key = parallel.tensor_parallel_size, "parallel.tensor_parallel_size"
    if tensor > 1:
        sizes = {
            "model.num_attention_heads": model.num_attention_heads,
            "model.intermediate_size": model.intermediate_size or 4 * model.hidden_size,
        }
        if parallel.sequence_parallel:
            sizes["batch.sequence_length"] = config.batch.sequence_length
        for name, size in sizes.items():
            if size % tensor:
                yield key, f"'{key}' = {tensor} does not divide '{name}' = {size}. Choose {divisors(size)}."
        groups = getattr(model, "num_key_value_heads", None) or model.num_attention_heads
        if groups % tensor and tensor % groups:
            yield (
                key,
                f"'{key}' = {tensor} neither divides 'model.num_key_value_heads' = {groups} nor is a multiple of it. "
                f"Choose {divisors(groups)}, or a multiple of {groups}.",
            )
    if parallel.offload_optimizer and parallel.zero_stage == 0:
        yield (
            "parallel.offload_optimizer",
            "'parallel.offload_optimizer' = true with 'parallel.zero_stage' = 0: there are no master weights to move. "
            "Set 'parallel.zero_stage' to 1, 2 or 3.",
        )
    if parallel.hierarchical_partition_size is not None and parallel.zero_stage != 3:
        yield (
            "parallel.hierarchical_partition_size",
            f"'parallel.hierarchical_partition_size' = {parallel.hierarchical_partition_size} with "
            f"'parallel.zero_stage' = {parallel.zero_stage}: every rank holds whole weights already. Leave it out, or "
            "set 'parallel.zero_stage' to 3.",
        )
    if parallel.hierarchical_partition_size is not None and tensor > 1:
        yield (
            "parallel.hierarchical_partition_size",
            f"'parallel.hierarchical_partition_size' = {parallel.hierarchical_partition_size} with "
            f"'parallel.tensor_parallel_size' = {tensor}: DeepSpeed groups neighbouring ranks, and these hold "
            "different parts of each weight. Leave it out, or set 'parallel.tensor_parallel_size' to 1.",
        )
    if parallel.pipeline_parallel_size > 1 and parallel.zero_stage > 1:
        yield (
            "parallel.zero_stage",
            f"'parallel.zero_stage' = {parallel.zero_stage} with 'parallel.pipeline_parallel_size' = "
            f"{parallel.pipeline_parallel_size}: DeepSpeed shares gradients and weights only where each rank holds all "
            "layers. Set 'parallel.zero_stage' to 1, or use tensor parallelism instead of the pipeline.",
        )


def _check_data(config: Config) -> Iterator[tuple[str, str]]:
    weights = {name: source.weight for name, source in config.data.sources.items()}
    given = [name for name, weight in weights.items() if weight is not None]
    if given and len(given) < len(weights):
        missing = ", ".join(sorted(set(weights) - set(given)))
        yield (
            "data.sources",
            f"'data.sources' gives weights to {', '.join(given)} but not to {missing}. Give one to each, or to none.",
        )
    for number, stage in enumerate(config.data.stages):
        if (stage.from_step is None) == (stage.from_fraction is None):
            yield (
                f"data.stages.{number}",
                f"'data.stages.{number}' has from_step = {stage.from_step} and from_fraction = {stage.from_fraction}: "
                "set exactly one of them.",
            )
        if not any(stage.weights.values()):
            yield (
                f"data.stages.{number}.weights",
                f"'data.stages.{number}.weights' are all 0. Give at least one source a positive weight.",
            )
        unknown = sorted(set(stage.weights) - set(config.data.sources)) if config.data.sources else []
        if unknown:
            yield (
                f"data.stages.{number}.weights",
                f"'data.stages.{number}.weights' names {', '.join(unknown)}, which 'data.sources' does not. Known: "
                f"{', '.join(config.data.sources)}. A source that is read in a stage only has weight 0 there.",
            )
    if config.data.reset_position_ids and not config.data.mask_across_documents:
        yield (
            "data.reset_position_ids",
            "'data.reset_position_ids' = true without 'data.mask_across_documents': two tokens of different documents "
            "would share a position and see each other. Set both, or neither.",
        )
    if config.corpus is not None:
        unknown = sorted(set(config.data.sources) - set(config.corpus.sources))
        if unknown:
            yield (
                "data.sources",
                f"'data.sources' names {', '.join(unknown)}, which 'corpus.sources' does not. "
                f"Known: {', '.join(sorted(config.corpus.sources))}.",
            )
        trained = config.corpus.tokenizer.vocab_size if config.corpus.tokenizer.folder is None else None
        if trained is not None and config.model.vocab_size not in (None, trained):
            yield (
                "model.vocab_size",
                f"'model.vocab_size' = {config.model.vocab_size} differs from 'corpus.tokenizer.vocab_size' = "
                f"{config.corpus.tokenizer.vocab_size}. Leave it out, or set both to the same number.",
            )


def _check_corpus(config: Config) -> Iterator[tuple[str, str]]:
    corpus = config.corpus
    if corpus is None:
        return
    if corpus.tokenizer.accelerator and corpus.tokenizer.algorithm != "bpe":
        yield (
            "corpus.tokenizer.accelerator",
            f"'corpus.tokenizer.accelerator' = '{corpus.tokenizer.accelerator}' reads no tokenizer of "
            f"'corpus.tokenizer.algorithm' = '{corpus.tokenizer.algorithm}'. Set it to null, or the algorithm to bpe.",
        )
    for name, source in corpus.sources.items():
        if source.steps not in corpus.steps:
            yield (
                f"corpus.sources.{name}.steps",
                f"'corpus.sources.{name}.steps' = '{source.steps}' is no list of 'corpus.steps'. There are: "
                f"{', '.join(sorted(corpus.steps))}.",
            )


_CHECKS_OF_PRETRAINING = (
    _check_horizon,
    _check_batch,
    _check_heads,
    _check_schedule,
    _check_precision,
    _check_parallel,
    _check_data,
    _check_corpus,
)
