"""``lorry compile``: the pipeline as a file for Kubeflow."""

from pathlib import Path

import click

from lorry_pipelines.cli.task_options import overrides_option
from lorry_registry.cli.edge import format_examples, load_settings, print_warning
from lorry_registry.cli.prose import print_line
from lorry_registry.text.addresses import has_secret


@click.command(
    epilog=format_examples(
        "lorry compile tasks/*.yaml -o lorry.yaml --profile cluster.yaml",
        "lorry compile -o lorry.yaml              its tasks are given when a run starts",
        "lorry compile tasks/*.yaml -o lorry.yaml --target local",
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
@click.option(
    "--target",
    "target",
    type=click.Choice(["kubeflow", "local"]),
    default="kubeflow",
    show_default=True,
    help="Where it will run: on a cluster, which refuses what pods cannot reach, or on this machine.",
)
@click.option(
    "--profile",
    "profile_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="How steps are placed on the cluster; without it, each step has modest defaults.",
)
@overrides_option
def compile_tasks(
    files: tuple[Path, ...],
    output: Path,
    target: str,
    profile_file: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Compile the pipeline for Kubeflow.

    The tasks become the default of the parameter 'tasks', each as NAME@sha256:DIGEST; their documents go into
    the store. Without tasks, they are given when a run starts. Tasks that ask for different resources cannot
    be replaced then, and there is no such parameter.

    Passwords are not compiled in: steps read them from their environment, on a cluster from the Kubernetes
    secrets that the profile names.
    """
    from lorry_pipelines.cluster.profile import load_profile
    from lorry_pipelines.compilation import compile_pipeline, publish_tasks
    from lorry_pipelines.scheduling import load_tasks
    from lorry_registry.errors import UsageError

    if output.suffix not in (".yaml", ".yml"):
        raise UsageError("the compiled pipeline is YAML", where=str(output), todo="name it FILE.yaml")
    if profile_file is not None and target == "local":
        raise UsageError(
            "a profile places steps on a cluster", where="--profile", todo="leave it out, or --target local"
        )
    settings = load_settings()
    profile = load_profile(profile_file or settings.kubeflow.profile)
    specs = load_tasks(files, overrides, bases=settings.base_place)
    compile_pipeline(specs, output, settings=settings, profile=profile if target == "kubeflow" else None)
    references = publish_tasks(specs, settings)
    if has_secret(settings.tracking_uri):
        print_warning(
            f"the address of MLflow holds a password, so it is not in {output}: give the steps "
            "MLFLOW_TRACKING_URI in their environment, from a Kubernetes secret"
        )
    print_line(f"{output}: a pipeline over {len(specs)} task{'' if len(specs) == 1 else 's'}")
    for reference in references:
        print_line(f"  {reference}")
