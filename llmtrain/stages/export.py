"""Command `export`: a checkpoint -> a stock Hugging Face model, gated by logits and tokenizer parity."""

import itertools
from pathlib import Path

from llmtrain.errors import ConfigError
from llmtrain.model.export import export_to_huggingface
from llmtrain.shards.reader import open_data
from llmtrain.stages.finished_run import FinishedRun, load_finished_run
from llmtrain.tokenizer.fast_conversion import check_parity, load_fast

_PARITY_TOKENS = 2000
_MARK = "pretrained with llmtrain"  # in the card of every export


def export_run(run_folder: Path, output: Path | None, step: int | None) -> Path:
    """Write the model of a run.

    Args:
        run_folder: e.g. runs/quickstart.
        output: folder to write; None = `run_folder/export`.
        step: which checkpoint; None = the newest whole one.

    Returns:
        The folder.

    Raises:
        ConfigError: there is no run, or the folder to write holds something else than an export.
        CheckpointError: the checkpoint is damaged, or the export does not agree with our model.
        DataError: the exported tokenizer does not agree with ours.
    """
    output = output or run_folder / "export"
    _check_replaceable(output)
    run = load_finished_run(run_folder, step)
    tokenizer_folder = run.config.data.folder / "tokenizer"
    check_parity(run.tokenizer, load_fast(tokenizer_folder), _sample_texts(run))
    tokenizer = run.tokenizer
    special_ids = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    # Absolute, as the folder may be given as `.`
    folder = output.absolute()
    export_to_huggingface(run.weights, run.shape, tokenizer_folder, special_ids, _write_card(run), folder)
    return output


def _check_replaceable(output: Path) -> None:
    """A new export takes the place of an older one, and of nothing else."""
    card = output / "README.md"
    is_export = card.is_file() and _MARK in card.read_text(encoding="utf-8", errors="replace")
    if output.exists() and not is_export and not (output.is_dir() and not any(output.iterdir())):
        raise ConfigError(f"{output}: is there already and is not an export. Choose another folder, or remove it.")


def _sample_texts(run: FinishedRun) -> list[str]:
    """Some real text of each validation source."""
    opened = open_data(run.config.data.folder, "validation", list(run.config.data.sources))
    return [run.tokenizer.decode(shards.read(0, _PARITY_TOKENS).tolist()) for shards in opened.values()]


def _write_card(run: FinishedRun) -> str:
    opened = open_data(run.config.data.folder, "train", list(run.config.data.sources))
    rows = [f"| {name} | {shards.token_count:,} | {shards.manifest.licence} |" for name, shards in opened.items()]
    loss = run.manifest.validation_loss
    tokens = run.manifest.consumed_samples * run.config.batch.sequence_length
    return "\n".join(
        itertools.chain(
            [
                "---",
                "library_name: transformers",
                "pipeline_tag: text-generation",
                "---",
                f"# {run.config.run.name}",
                "",
                f"A {run.shape.family} model of {run.shape.num_parameters:,} parameters, {_MARK} for "
                f"{run.manifest.step:,} steps, {tokens:,} tokens."
                + (f" Validation loss {loss:.4f} nats per token." if loss is not None else ""),
                "",
                "| training data | tokens on disk | licence |",
                "|---|---|---|",
            ],
            rows,
            ["", f"Weights digest {run.manifest.weights_digest}, tokenizer sha256 {run.tokenizer.sha256}.", ""],
        )
    )
