"""``lorry doctor``: what is reachable, of what version, with what rights, and what to do."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from lorry_pipelines.diagnosis import Check, Finding, run_checks
from lorry_pipelines.diagnosis.library_checks import check_libraries, check_python
from lorry_pipelines.diagnosis.machine_checks import (
    check_containers,
    check_devices,
    check_home,
    check_processors,
)
from lorry_pipelines.diagnosis.mlflow_checks import check_mlflow
from lorry_pipelines.diagnosis.settings_checks import check_settings
from lorry_pipelines.diagnosis.store_checks import check_store
from lorry_registry.cli.edge import (
    brief_patience,
    format_examples,
    json_option,
    load_settings,
    print_json,
    read_environment,
)
from lorry_registry.cli.tables import clean_text, print_heading
from lorry_registry.errors import LorryError
from lorry_registry.settings import Settings

_SECONDS = 20.0
_DEVICE_SECONDS = 60.0
_COLOURS = {"ok": "green", "warning": "yellow", "failure": "red"}


@click.command(epilog=format_examples("lorry doctor", "lorry doctor --json"))
@json_option
def examine(as_json: bool) -> None:
    """Say what works here, and what to do about the rest.

    Settings and where each comes from; the store, MLflow and what may be done there; Python and the
    libraries; this machine. Nothing is left behind, and no secret is printed. The exit code is 1 if
    something that is set up does not work; what is merely not installed, or limited, is none of that.
    """
    environment = read_environment()
    with brief_patience():
        found = run_checks(_list_checks(environment))
    if as_json:
        print_json([_describe(section, finding) for section, finding in found])
    else:
        _print_findings(found)
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
        click.echo(f"{finding.subject:<{widest + 2}}{clean_text(finding.text)}")
        if finding.todo:
            click.echo(f"{'':<{widest + 13}}-> {clean_text(finding.todo)}")
    counts = {level: sum(finding.level == level for _, finding in found) for level in _COLOURS}
    click.echo(f"\n{_count(counts['failure'], 'failure')}, {_count(counts['warning'], 'warning')}")


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
