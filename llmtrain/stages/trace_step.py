"""Which documents were in a training step: sample order -> windows -> tokens -> documents and their origins.

Nothing is recorded while training: the sample order is a pure function, and each answer costs two binary searches a
document.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from llmtrain.checkpoint.find import find_latest
from llmtrain.checkpoint.manifest import read_manifest
from llmtrain.config.loader import load_config
from llmtrain.data.loader import build_order
from llmtrain.data.order import SampleOrder
from llmtrain.data.rows import PackedRows, StreamRows, open_rows
from llmtrain.errors import ConfigError, DataError
from llmtrain.plan.build import build_plan
from llmtrain.process.world import World
from llmtrain.shards.packing import pack_shard
from llmtrain.shards.trace import Tracer, escape_unprintable
from llmtrain.stages.run_folder import load_run_config
from llmtrain.stages.training_data import TrainingData, open_training_data


def trace_step(folder: Path, run: Path, step: int) -> Iterator[str]:
    """Documents of one optimizer step, sequence by sequence.

    Args:
        folder: `data.folder`.
        run: a run folder, or a configuration file.
        step: optimizer step, counted from 1 as in the metrics.

    Raises:
        ConfigError: the run has fewer steps.
        DataError: the data is not what the run was trained on, or its shards have no origins.
    """
    config = load_run_config(run) if run.is_dir() else load_config([run], []).config
    config = config.model_copy(update={"data": config.data.model_copy(update={"folder": folder})})
    data = open_training_data(config.data, World())
    if run.is_dir():
        _check_identity(run, folder, data)
    # The order depends on the size of the global batch alone, so the smallest world will do.
    world_size = config.parallel.tensor_parallel_size * config.parallel.pipeline_parallel_size
    plan = build_plan(config, world_size, data.tokenizer.vocab_size)
    if not 1 <= step <= plan.train_steps:
        raise ConfigError(f"step {step:,}: the run has {plan.train_steps:,} steps. Choose 1 to {plan.train_steps:,}.")
    # Packed in memory where training has not written how: a look at data changes nothing in its folder.
    rows = {
        name: open_rows(shards, config.data, plan.sequence_length, pack_shard) for name, shards in data.train.items()
    }
    order = build_order(config, plan, data.train, rows)
    yield from _trace(data, rows, order, step, plan.global_batch_size)


def _trace(
    data: TrainingData,
    rows: Mapping[str, StreamRows | PackedRows],
    order: SampleOrder,
    step: int,
    batch_size: int,
) -> Iterator[str]:
    samples = order.locate((step - 1) * batch_size, batch_size)
    names = order.mixture.names
    tracers = {name: Tracer(data.train[name]) for name in names}
    seen: Counter[str] = Counter()
    for i, (source, epoch, window) in enumerate(
        zip(samples.sources.tolist(), samples.epochs.tolist(), samples.windows.tolist(), strict=True)
    ):
        name = names[source]
        yield f"sequence {i}: {name}, epoch {epoch}, window {window:,}"
        for start, stop in rows[name].locate(window):
            for document in tracers[name].trace_range(start, stop):
                first, last = max(start, document.start), min(stop, document.start + document.length)
                seen[name] += 1
                yield (
                    f"  {document.origin.id}  tokens {first - document.start:,} to {last - 1 - document.start:,} of "
                    f"{document.length:,}  {escape_unprintable(f'{document.origin.licence}  {document.origin.origin}')}"
                )
    counts = ", ".join(f"{count:,} of {name}" for name, count in seen.items())
    yield f"step {step:,}: {batch_size:,} sequences, pieces of documents: {counts}"


def _check_identity(run: Path, folder: Path, data: TrainingData) -> None:
    checkpoint = find_latest(run / "checkpoints")
    if checkpoint is None:
        return
    trained_on = read_manifest(checkpoint).progress["data"]
    changed = sorted(name for name, digest in data.identity.items() if trained_on.get(name) != digest)
    if changed:
        raise DataError(
            f"{folder}: {', '.join(changed)} is not what {run} was trained on: the sha256 of the manifests differ. "
            "Give the folder with the data of that run, or prepare it again with the same configuration."
        )
