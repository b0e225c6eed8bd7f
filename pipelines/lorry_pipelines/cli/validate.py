"""``lorry validate``: what is wrong with a task file, without running it."""

from pathlib import Path

import click

from lorry_pipelines.cli.task_options import files_argument, overrides_option
from lorry_registry.cli.edge import format_examples, json_option, load_settings, print_json


@click.command(
    epilog=format_examples("lorry validate tasks/*.yaml", "lorry validate reviews.yaml --set train.epochs=5")
)
@files_argument
@overrides_option
@json_option
def validate_tasks(files: tuple[Path, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Check task files without running them.

    All faults of all files are reported at once, with file, line and field. If the base is on this machine,
    the method is checked against it too. The exit code is 3 if there are faults.
    """
    from lorry_components.process_setup import quiet_libraries
    from lorry_components.tasks.base_checks import check_bases
    from lorry_pipelines.scheduling import load_tasks

    quiet_libraries()
    specs = load_tasks(files, overrides, bases=load_settings().base_place)
    check_bases(specs)
    if as_json:
        print_json([spec.model_dump(mode="json") for spec in specs])
        return
    for path, spec in zip(files, specs, strict=True):
        click.echo(f"{path}: {spec.name}, {spec.kind} with {spec.method.name} on {spec.base.model}: valid")
