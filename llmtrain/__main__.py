"""The one door: `llmtrain <command>`. Parses, hands on, and turns errors into messages and exit codes.

Heavy imports happen inside the commands, so that help and a typing mistake cost a fraction of a second.
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmtrain.config.pipeline import PipelineStage, PosttrainingStage
from llmtrain.errors import ConfigError, LlmtrainError
from llmtrain.process.logs import configure_logging
from llmtrain.process.world import World
from llmtrain.stages.cluster_commands import cluster_app
from llmtrain.stages.plan_run import plan_run
from llmtrain.stages.verify_commands import verify_app

if TYPE_CHECKING:
    from llmtrain.config.loader import LoadedConfig
    from llmtrain.config.root import Config

app = typer.Typer(
    name="llmtrain",
    help="Train language models: raw text -> tokenizer -> shards -> pretraining on DeepSpeed -> Hugging Face export.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Raw text -> documents -> tokenizer -> token shards.", no_args_is_help=True)
config_app = typer.Typer(help="Look at configurations.", no_args_is_help=True)
checkpoint_app = typer.Typer(help="Look at checkpoints.", no_args_is_help=True)
tracking_app = typer.Typer(help="Look after the mirror in MLflow.", no_args_is_help=True)
launch_app = typer.Typer(help="Write what a scheduler needs.", no_args_is_help=True)
app.add_typer(launch_app, name="launch")
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")
app.add_typer(checkpoint_app, name="checkpoint")
app.add_typer(tracking_app, name="tracking")
app.add_typer(verify_app, name="verify")
app.add_typer(cluster_app, name="cluster")
app.command("plan")(plan_run)

ConfigFile = Annotated[Path, typer.Argument(help="YAML file of the run.", metavar="CONFIG")]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value ...", metavar="[OVERRIDES]")]
MoreFiles = Annotated[list[Path] | None, typer.Option("--config", "-c", help="More YAML files; later ones win.")]
NumRanks = Annotated[int | None, typer.Option("--nproc", min=1, help="Start this many ranks on this machine.")]
WorldSize = Annotated[int | None, typer.Option("--world-size", min=1, help="With --dry-run: plan for so many ranks.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the configuration and the plan, then stop.")]
RunFolder = Annotated[Path, typer.Argument(help="Run folder, e.g. runs/quickstart.", metavar="RUN")]


def _load(config: Path, overrides: list[str] | None, more: list[Path] | None) -> "LoadedConfig[Config]":
    from llmtrain.config.loader import load_config

    return load_config([config, *(more or [])], overrides or [])


@app.command()
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    more: MoreFiles = None,
    nproc: NumRanks = None,
    dry_run: DryRun = False,
    first: Annotated[
        PipelineStage | None, typer.Option("--from", help="Do this stage again, and what follows.")
    ] = None,
    only: Annotated[PipelineStage | None, typer.Option(help="Do this stage again, and no other.")] = None,
) -> None:
    """Everything from raw text to the last stage of the configuration. Finished work is not done again."""
    loaded = _load(config, overrides, more)

    from llmtrain.stages.pipeline import print_pipeline, run_pipeline

    if dry_run:
        print_pipeline(loaded, nproc or 1, first, only)
        return

    def prepare_data(config: "Config") -> None:
        from data_pipelines.instructions.make_of_run import make_instructions_of_run
        from data_pipelines.prepare import prepare

        if config.corpus is not None:
            prepare(config)
        make_instructions_of_run(config)

    raise typer.Exit(run_pipeline(loaded, nproc or 1, prepare_data, first, only))


@app.command()
def pretrain(
    config: ConfigFile,
    overrides: Overrides = None,
    more: MoreFiles = None,
    nproc: NumRanks = None,
    dry_run: DryRun = False,
    world_size: WorldSize = None,
) -> None:
    """Train on shards. Under torchrun, deepspeed or srun this is one rank; with --nproc it starts the ranks itself."""
    loaded = _load(config, overrides, more)

    from llmtrain.process.world import read_world, refuse_second_launcher
    from llmtrain.stages.pretrain import launch_pretrain, print_plan, run_rank

    if dry_run:
        print_plan(loaded, world_size or nproc or read_world().world_size)
    elif nproc is not None:
        refuse_second_launcher()
        raise typer.Exit(launch_pretrain(loaded, nproc))
    else:
        raise typer.Exit(run_rank(loaded.config, read_world()))


def _add_stage(name: PosttrainingStage, text: str) -> None:
    def command(
        config: ConfigFile, overrides: Overrides = None, more: MoreFiles = None, nproc: NumRanks = None
    ) -> None:
        from llmtrain.config.loader import load_stage_config

        loaded = load_stage_config([config, *(more or [])], overrides or [])
        from llmtrain.process.world import read_world, refuse_second_launcher
        from llmtrain.stages.posttraining import launch_stage, run_stage

        if nproc is not None:
            refuse_second_launcher()
            raise typer.Exit(launch_stage(loaded.config, name, nproc))
        raise typer.Exit(run_stage(loaded.config, name, read_world()))

    app.command(name, help=text)(command)


_add_stage("sft", "Fine-tune on conversations (section `sft`). Under torchrun, deepspeed or srun this is one rank.")
_add_stage("reward", "Train a reward model on pairs of answers (section `reward`).")
_add_stage("ppo", "Reinforcement learning from a reward (section `ppo`), by PPO or RLOO.")


@launch_app.command("slurm")
def launch_slurm(
    config: ConfigFile,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")],
    overrides: Overrides = None,
    more: MoreFiles = None,
    ranks_per_node: Annotated[int, typer.Option(min=1, help="Ranks on each machine.")] = 8,
    gpus_per_node: Annotated[int | None, typer.Option(min=0, help="Default: as many as ranks; 0 = none.")] = None,
    time: Annotated[str | None, typer.Option(help="Time limit, e.g. 24:00:00.")] = None,
    partition: Annotated[str | None, typer.Option(help="Slurm partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm account.")] = None,
    job_name: Annotated[str, typer.Option(help="Name in the queue.")] = "llmtrain",
    output: Annotated[Path | None, typer.Option(help="Script to write; default RUN_NAME.sbatch.")] = None,
) -> None:
    """Check a run and write its sbatch script: saves before the time limit and queues itself again."""
    loaded = _load(config, overrides, more)

    from llmtrain.process.slurm_script import SlurmRequest
    from llmtrain.stages.launch_slurm import write_slurm_script

    files = [part for path in more or [] for part in ("--config", str(path))]
    arguments = [*files, "--", str(config), *(overrides or [])]
    gpus = ranks_per_node if gpus_per_node is None else gpus_per_node
    request = SlurmRequest(arguments, sys.executable, nodes, ranks_per_node, gpus, time, partition, account, job_name)
    write_slurm_script(loaded, request, output)


@data_app.command("build", hidden=True)
@data_app.command("prepare")
def data_prepare(
    config: ConfigFile,
    overrides: Overrides = None,
    more: MoreFiles = None,
    task: Annotated[int | None, typer.Option(help="Only read and clean this share of the input, from 0 on.")] = None,
    tasks: Annotated[int, typer.Option(min=1, help="Number of shares.")] = 1,
) -> None:
    """Run section `corpus`: clean, deduplicate, train the tokenizer, write shards. Continues where it was stopped."""
    loaded = _load(config, overrides, more)

    from data_pipelines.instructions.make_of_run import make_instructions_of_run
    from data_pipelines.prepare import extract_share, prepare

    if task is None:
        if loaded.config.corpus is not None or loaded.config.instructions is None:
            prepare(loaded.config)
        make_instructions_of_run(loaded.config)
    else:
        extract_share(loaded.config, task, tasks)


@data_app.command("verify")
def data_verify(folder: Annotated[Path, typer.Argument(help="Data folder.", metavar="DIR")]) -> None:
    """Check the tokenizer and every shard against their sha256."""
    from data_pipelines.verify import verify_data

    verify_data(folder)


@data_app.command("report")
def data_report(folder: Annotated[Path, typer.Argument(help="Data folder.", metavar="DIR")]) -> None:
    """Draw report.html anew: sizes, lengths, languages, why documents went, what they looked like, tokens."""
    from data_pipelines.report import draw_report

    typer.echo(draw_report(folder))


@data_app.command("show")
def data_show(
    folder: Annotated[Path, typer.Argument(help="Data folder.", metavar="DIR")],
    sample: Annotated[int | None, typer.Option(min=1, help="Show so many documents of each source.")] = None,
    document: Annotated[str | None, typer.Option(help="Show the document with this id.", metavar="ID")] = None,
    token: Annotated[int | None, typer.Option(help="Show the document of this token of a source's stream.")] = None,
    step: Annotated[int | None, typer.Option(help="List the documents of this optimizer step of a run.")] = None,
    source: Annotated[str | None, typer.Option(help="With --sample and --token: which source.")] = None,
    split: Annotated[
        Literal["train", "validation"] | None, typer.Option(help="With --sample and --token; default train.")
    ] = None,
    run_or_config: Annotated[Path | None, typer.Option("--run", help="With --step: run folder or YAML file.")] = None,
) -> None:
    """Trace tokens to documents and documents to where they come from. Default: --sample 3."""
    from data_pipelines.show import check_question, show_document, show_sample, show_token

    check_question(sample, document, token, step, source, split, run_or_config)
    if step is not None and run_or_config is not None:
        from llmtrain.stages.trace_step import trace_step

        lines = trace_step(folder, run_or_config, step)
    elif document is not None:
        lines = show_document(folder, document)
    elif token is not None:
        lines = show_token(folder, split or "train", source, token)
    else:
        lines = show_sample(folder, split or "train", source, sample or 3)
    for line in lines:
        typer.echo(line)


@config_app.command("show")
def config_show(config: ConfigFile, overrides: Overrides = None, more: MoreFiles = None) -> None:
    """Every key with its value and where the value came from."""
    from llmtrain.config.show import describe_config

    rows = describe_config(_load(config, overrides, more))
    width = max(len(f"{key}: {value}") for key, value, _ in rows if len(value) < 40)
    for key, value, origin in rows:
        typer.echo(f"{f'{key}: {value}':<{width}}  # {origin}")


@config_app.command("schema")
def config_schema() -> None:
    """The JSON schema of a run's YAML file, for completion in editors."""
    import json

    from llmtrain.config.schema import build_json_schema

    typer.echo(json.dumps(build_json_schema(), indent=2))


@checkpoint_app.command("list")
def checkpoint_list(run_folder: RunFolder) -> None:
    """Checkpoints of a run: step, size, validation loss, whether they are whole."""
    from llmtrain.stages.checkpoints import print_checkpoints

    print_checkpoints(run_folder)


@checkpoint_app.command("verify")
def checkpoint_verify(run_folder: RunFolder) -> None:
    """Check every file of every checkpoint against its sha256."""
    from llmtrain.stages.checkpoints import verify_checkpoints

    verify_checkpoints(run_folder)


@checkpoint_app.command("show")
def checkpoint_show(
    run_folder: RunFolder,
    step: Annotated[int | None, typer.Option(help="Checkpoint to show; default the newest.")] = None,
) -> None:
    """One checkpoint: step, samples, layout, size, digest, parameters by shape, changed configuration, versions."""
    from llmtrain.stages.checkpoints import show_checkpoint

    show_checkpoint(run_folder, step)


@checkpoint_app.command("convert")
def checkpoint_convert(
    run_folder: RunFolder,
    step: Annotated[int, typer.Option(help="Checkpoint to convert.")],
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Type of the written tensors.")] = "float32",
) -> None:
    """Write the weights as plain safetensors files by canonical name, checked against the digest, for tools."""
    from llmtrain.stages.checkpoints import convert

    convert(run_folder, step, output, dtype)
    typer.echo(output)


@app.command()
def export(
    run_folder: RunFolder,
    output: Annotated[Path | None, typer.Option(help="Folder to write; default RUN/export.")] = None,
    step: Annotated[int | None, typer.Option(help="Checkpoint to export; default the newest.")] = None,
) -> None:
    """Write the model as a stock Hugging Face model, gated by logits and tokenizer parity."""
    from llmtrain.stages.export import export_run

    typer.echo(export_run(run_folder, output, step))


@app.command()
def generate(
    run_folder: RunFolder,
    prompt: Annotated[list[str], typer.Option(help="Text to continue; may be given several times.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to add at most.")] = 100,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 = the most likely token always.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from the k most likely tokens; 0 = all.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    step: Annotated[int | None, typer.Option(help="Checkpoint to use; default the newest.")] = None,
) -> None:
    """Continue text with the model of a run."""
    from llmtrain.stages.generate import generate_texts

    for text in generate_texts(run_folder, prompt, max_new_tokens, temperature, top_k or None, seed, step):
        typer.echo(text)


@app.command()
def dashboard(
    root: Annotated[Path, typer.Argument(help="Folder that holds the runs.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open MLflow on 127.0.0.1."""
    from llmtrain.stages.dashboard import open_dashboard

    open_dashboard(root, port)


@tracking_app.command("sync")
def tracking_sync(run_folder: RunFolder) -> None:
    """Send to MLflow what it missed while it was away."""
    from llmtrain.tracking.mirror import sync_run

    sync_run(run_folder)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print findings as JSON.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Remove build locks that nobody holds.")] = False,
) -> None:
    """Look at this machine: versions, compiler, ports, stale build locks, disk, GPU; each finding with its remedy."""
    from llmtrain.stages.doctor import run_doctor

    raise typer.Exit(run_doctor(as_json=as_json, fix=fix))


def main() -> None:
    """Run the command line; user errors print one message and exit with their code."""
    configure_logging(World())
    try:
        app()
    except LlmtrainError as error:
        kind = "llmtrain" if not isinstance(error, ConfigError) else "configuration"
        sys.stderr.write(f"{kind}: {error}\n" if "\n" not in str(error) else f"{kind}:\n{error}\n")
        logging.getLogger(__name__).debug("raised here", exc_info=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
