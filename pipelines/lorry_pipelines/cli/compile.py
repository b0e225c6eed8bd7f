"""``lorry compile``: the pipeline as a file for Kubeflow."""

from pathlib import Path

import click

from lorry_pipelines.cli.task_options import overrides_option
from lorry_registry.addresses import has_secret
from lorry_registry.cli.edge import format_examples, load_settings, print_warning


@click.command(
    epilog=format_examples(
        "lorry compile -o lorry.yaml",
        "lorry compile tasks/*.yaml -o lorry.yaml",
        "kfp run create -f lorry.yaml",
    )
)
@click.argument("files", nargs=-1, metavar="[TASK.yaml]...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write; its name ends in .yaml.",
)
@overrides_option
def compile_tasks(files: tuple[Path, ...], output: Path, overrides: tuple[str, ...]) -> None:
    """Compile the pipeline for Kubeflow.

    The tasks become the default of the parameter 'tasks'; without any, they are given when a run starts.
    Passwords are not compiled in: steps read them from their environment, on a cluster from a Kubernetes
    secret.
    """
    from lorry_pipelines.compilation import compile_pipeline
    from lorry_pipelines.scheduling import load_tasks
    from lorry_registry.errors import UsageError

    if output.suffix not in (".yaml", ".yml"):
        raise UsageError("the compiled pipeline is YAML", where=str(output), todo="name it FILE.yaml")
    specs = load_tasks(files, overrides)
    settings = load_settings()
    compile_pipeline(specs, output, settings=settings)
    if has_secret(settings.tracking_uri):
        print_warning(
            f"the address of MLflow holds a password, so it is not in {output}: give the steps "
            "MLFLOW_TRACKING_URI in their environment, from a Kubernetes secret"
        )
    click.echo(f"{output}: a pipeline over {len(specs)} task{'' if len(specs) == 1 else 's'}")
