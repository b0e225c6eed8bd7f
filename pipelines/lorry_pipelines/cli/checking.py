"""``lorry validate`` and ``lorry compile``: what can be known without running."""

from pathlib import Path

import click

from lorry_registry.addresses import has_secret
from lorry_registry.cli.edge import format_examples, json_option, load_settings, print_json, print_warning

overrides_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change a field of every task, for example method.r=16. May be given more than once.",
)
files_argument = click.argument(
    "files", nargs=-1, required=True, metavar="TASK.yaml...", type=click.Path(path_type=Path)
)


@click.command(
    epilog=format_examples("lorry validate tasks/*.yaml", "lorry validate reviews.yaml --set train.epochs=5")
)
@files_argument
@overrides_option
@json_option
def validate_tasks(files: tuple[Path, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Check task files without running them.

    All faults of all files are told at once, with file, line and field. A base that is on this machine is
    looked at too: whether the method works on it. Exit code 3 when there are faults.
    """
    from lorry_components.steps.runtime.step_context import quiet_libraries
    from lorry_components.tasks.checks import check_bases
    from lorry_pipelines.scheduling import load_tasks

    quiet_libraries()
    specs = load_tasks(files, overrides)
    check_bases(specs)
    if as_json:
        print_json([spec.model_dump(mode="json") for spec in specs])
        return
    for path, spec in zip(files, specs, strict=True):
        click.echo(f"{path}: {spec.name}, {spec.kind} with {spec.method.name} on {spec.base.model}: valid")


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

    The tasks become the default of the parameter 'tasks'. Without tasks, they are given when a run starts.
    Passwords are not compiled in: steps take them from their environment, on a cluster from a Kubernetes
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
            f"the address of MLflow holds a password and is not in {output}: give the steps "
            "MLFLOW_TRACKING_URI in their environment, from a Kubernetes secret"
        )
    click.echo(f"{output}: a pipeline over {len(specs)} task{'' if len(specs) == 1 else 's'}")
