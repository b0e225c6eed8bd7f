"""``lorry reconcile``: make MLflow, which only displays the ledger, match it again."""

import click

from lorry_registry.cli.edge import (
    complete_tasks,
    fail_after,
    format_examples,
    json_option,
    load_settings,
    open_index,
    print_json,
)
from lorry_registry.cli.prose import print_line, print_prose
from lorry_registry.errors import LorryError
from lorry_registry.registry import Registry


@click.command(
    epilog=format_examples("lorry reconcile", "lorry reconcile reviews", "lorry reconcile --adopt")
)
@click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=complete_tasks)
@click.option(
    "--adopt",
    "adopt_alias",
    is_flag=True,
    help="Promote in the ledger what was made the champion in MLflow.",
)
@json_option
def reconcile_tasks(tasks: tuple[str, ...], adopt_alias: bool, as_json: bool) -> None:
    """Make MLflow match the ledger.

    Versions that MLflow lacks are added, tags are corrected by the files that a version really holds, and
    the aliases 'champion' and 'challenger' follow the ledger: after a crash between the ledger and MLflow,
    after an edit in MLflow's own pages, or with a new MLflow. A deleted experiment and the champion's deleted
    run are restored. All tasks by default. The ledger is changed
    only with --adopt. A task that fails does not stop the others: it is reported at the end, and the exit
    code says what failed.
    """
    from lorry_components.steps.register.mlflow_publication import reconcile_task

    settings = load_settings()
    registry = Registry.open(settings)
    index = open_index(settings)
    # An MLflow that does not answer is reported once, not by every task.
    index.check_reachable()
    names = list(dict.fromkeys(tasks or registry.ledger.list_tasks()))
    if not names:
        # Trainings that failed and studies have files there, too.
        for line in index.follow_relocation():
            print_line(line, err=as_json)
    changes: dict[str, list[str]] = {}
    problems: dict[str, LorryError] = {}
    for task in names:
        try:
            changes[task] = reconcile_task(index, registry, task, adopt_alias=adopt_alias)
        except LorryError as error:
            problems[task] = error
    if as_json:
        print_json(changes)
    else:
        for task, lines in changes.items():
            if len(lines) < 2:
                print_prose(f"{task}: {lines[0] if lines else 'nothing to do'}")
            else:
                print_prose("\n  - ".join([f"{task}:", *lines]))
    fail_after(problems)
