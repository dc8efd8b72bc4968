"""Commands `cluster`: the described clusters that `llmtrain plan` knows, and this machine as one more."""

from pathlib import Path
from typing import Annotated

import typer

cluster_app = typer.Typer(help="Describe clusters for `llmtrain plan`.", no_args_is_help=True)


@cluster_app.command("list")
def cluster_list() -> None:
    """Names of the described clusters, with their devices."""
    from llmtrain.config.cluster import list_clusters, load_cluster

    names = list_clusters()
    width = max(map(len, names))
    for name in names:
        cluster = load_cluster(name)
        typer.echo(f"{name:<{width}}  {cluster.nodes:,} x {cluster.devices_per_node} {cluster.device.name}")


@cluster_app.command("show")
def cluster_show(cluster: Annotated[str, typer.Argument(help="A name of `cluster list`, or a YAML file.")]) -> None:
    """The file that describes a cluster, once it has been checked."""
    from llmtrain.config.cluster import find_cluster_file, read_cluster

    path = find_cluster_file(cluster, asked_by="command line: cluster show")
    read_cluster(path)
    typer.echo(path.read_text(encoding="utf-8"), nl=False)


@cluster_app.command("measure")
def cluster_measure(
    nproc: Annotated[int | None, typer.Option("--nproc", min=1, help="Ranks to start here; default 1.")] = None,
    output: Annotated[Path, typer.Option(help="YAML file to write.")] = Path("my_machine.yaml"),
    name: Annotated[str | None, typer.Option(help="What to call it; default: by its processor or GPU.")] = None,
    folder: Annotated[Path, typer.Option(help="Where checkpoints would go, for the speed of storage.")] = Path(),
    figures: Annotated[Path | None, typer.Option(hidden=True, help="Of ranks that this command started.")] = None,
) -> None:
    """Measure this machine under the load of a training run, and write it as a file for `plan --cluster`.

    Under torchrun, deepspeed or srun their ranks, also of several machines, are measured; otherwise ranks of this one.
    """
    from llmtrain.process.logs import configure_logging
    from llmtrain.process.world import read_world, refuse_second_launcher
    from llmtrain.stages.cluster_measure import measure_cluster, measure_into_file

    world = read_world()
    configure_logging(world)
    if figures is not None:
        measure_into_file(figures, world, folder)
        return
    if nproc is not None:
        refuse_second_launcher()
    if measure_cluster(world, nproc or 1, output, folder, name):
        typer.echo(output)
