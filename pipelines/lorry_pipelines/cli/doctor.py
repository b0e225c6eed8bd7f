"""``lorry doctor``: what is reachable, of what version, with what rights, and what to do."""

import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from lorry_pipelines.cli.kubeflow_options import override_kubeflow
from lorry_pipelines.diagnosis import Check, Finding, run_checks
from lorry_pipelines.diagnosis.library_checks import check_libraries, check_python
from lorry_pipelines.diagnosis.machine_checks import (
    check_containers,
    check_devices,
    check_home,
    check_processors,
)
from lorry_pipelines.diagnosis.mlflow_checks import check_mlflow
from lorry_pipelines.diagnosis.settings_checks import check_settings, leave_out_defaults
from lorry_pipelines.diagnosis.store_checks import check_store
from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    load_settings,
    print_json,
    read_environment,
)
from lorry_registry.cli.prose import fit_prose, print_prose
from lorry_registry.cli.tables import print_heading
from lorry_registry.errors import LorryError, UsageError
from lorry_registry.settings import Settings

_SECONDS = 20.0
_DEVICE_SECONDS = 60.0
_COLOURS = {"ok": "green", "warning": "yellow", "failure": "red"}


@click.command(
    epilog=format_examples(
        "lorry doctor",
        "lorry doctor --json",
        "lorry doctor --cluster --profile cluster.yaml   Kubeflow, Kubernetes, and a pod's view",
    )
)
@click.option("--cluster", is_flag=True, help="Look at the cluster instead, with a pipeline of one step.")
@click.option(
    "--profile",
    "profile_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --cluster: how steps are placed there.",
)
@click.option("--host", metavar="URL", help="With --cluster: Kubeflow Pipelines.")
@click.option("--namespace", metavar="NAME", help="With --cluster: the namespace of the steps.")
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --cluster: certificates by which Kubeflow's is checked.",
)
@click.option("--service-account", metavar="NAME", help="With --cluster: the steps' account.")
@click.option("--no-pod", is_flag=True, help="With --cluster: start no pod, and look from here only.")
@click.option(
    "--pod-seconds",
    type=click.IntRange(10, 3600),
    default=600,
    show_default=True,
    help="With --cluster: how long to wait for the pod.",
)
@click.option("--all", "shows_all", is_flag=True, help="Also show the settings that are the default.")
@json_option
def examine(
    cluster: bool,
    profile_file: Path | None,
    host: str | None,
    namespace: str | None,
    ca_file: Path | None,
    service_account: str | None,
    no_pod: bool,
    pod_seconds: int,
    shows_all: bool,
    as_json: bool,
) -> None:
    """Say what works here, and what to do about the rest.

    Settings and where each comes from; the store, MLflow and what may be done there; Python and the
    libraries; this machine. Nothing is left behind, and no secret is printed. The exit code is 1 if
    something that is set up does not work; what is merely not installed, or limited, is none of that.

    With --cluster: whether Kubeflow is reached and new enough; whether the secrets, claims, quotas, the queue
    and Kubeflow Trainer that the profile names are there, as far as your kubeconfig may see them; and, by a
    pipeline of one step, whether the image is pulled and a pod reaches store, MLflow and bases.
    """
    if cluster:
        from lorry_pipelines.cli.doctor_cluster import list_cluster_checks

        settings = override_kubeflow(
            load_settings(),
            host=host,
            namespace=namespace,
            service_account=service_account,
            ca_file=ca_file,
            profile=profile_file,
        )
        checks = list_cluster_checks(settings, None if no_pod else pod_seconds)
    else:
        if profile_file or host or namespace or ca_file or service_account or no_pod:
            raise UsageError("these options are about a cluster", where="lorry doctor", todo="add --cluster")
        checks = _list_checks(read_environment())
    found = run_checks(checks)
    if as_json:
        print_json([_describe(section, finding) for section, finding in found])
    else:
        _print_findings(found if shows_all else leave_out_defaults(found))
    if any(finding.level == "failure" for _, finding in found):
        click.get_current_context().exit(LorryError.exit_code)


def _list_checks(environment: Mapping[str, str]) -> list[Check]:
    checks: list[Check] = []
    settings: Settings | None = None
    try:
        settings = load_settings()
    except LorryError as error:
        # It can only be said once: nothing that depends on settings is looked at.
        findings = [Finding("settings", "failure", str(error).partition("\n  ->")[0], "correct lorry.toml")]
        checks.append(Check("Settings", "settings", _SECONDS, lambda: findings))
    if settings is not None:
        checks += [
            Check(
                "Settings",
                "settings",
                _SECONDS,
                functools.partial(check_settings, settings, environment, Path.cwd()),
            ),
            Check("Store", "store", _SECONDS, functools.partial(check_store, settings)),
            Check("MLflow", "MLflow", _SECONDS, functools.partial(check_mlflow, settings, environment)),
        ]
    checks += [
        Check("Libraries", "Python", _SECONDS, lambda: [check_python()]),
        Check("Libraries", "libraries", _SECONDS, check_libraries),
        Check("Machine", "machine", _SECONDS, check_processors),
        Check(
            "Machine",
            "accelerators",
            # The process that it starts ends first, and says more.
            _DEVICE_SECONDS + 5,
            functools.partial(check_devices, environment, _DEVICE_SECONDS),
        ),
    ]
    if settings is not None:
        containers = functools.partial(check_containers, settings, environment)
        checks.append(Check("Machine", "containers", _SECONDS, containers))
        checks.append(Check("Machine", "home", _SECONDS, functools.partial(check_home, settings)))
    return checks


def _describe(section: str, finding: Finding) -> dict[str, object]:
    return {
        "section": section,
        "subject": finding.subject,
        "level": finding.level,
        "text": finding.text,
        "todo": finding.todo,
        **({"details": dict(finding.details)} if finding.details else {}),
    }


def _print_findings(found: Sequence[tuple[str, Finding]]) -> None:
    widest = max(len(finding.subject) for _, finding in found)
    section = ""
    for heading, finding in found:
        if heading != section:
            print_heading(heading)
            section = heading
        click.secho(f"  {finding.level:<9}", fg=_COLOURS[finding.level], nl=False)
        # What continues below stands where it began.
        level, space = f"  {finding.level:<9}", " " * (widest + 13)
        text = finding.text.replace("\n", f"\n{space}")
        line = fit_prose(f"{level}{finding.subject:<{widest + 2}}{text}", sys.stdout, hanging=space[2:])
        click.echo(line.removeprefix(level))
        if finding.todo:
            print_prose(f"{space}-> {finding.todo}", hanging="   ")
    counts = {level: sum(finding.level == level for _, finding in found) for level in _COLOURS}
    click.echo(f"\n{_count(counts['failure'], 'failure')}, {_count(counts['warning'], 'warning')}")


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
