"""``lorry sign``: signatures for adapters and ledgers that have none yet, and a key pair to sign with."""

from dataclasses import dataclass, field
from pathlib import Path

import click

from lorry_registry.cli.edge import (
    complete_tasks,
    fail_after,
    format_examples,
    json_option,
    load_settings,
    open_registry,
    print_json,
    print_warning,
)
from lorry_registry.cli.prose import print_line
from lorry_registry.errors import LorryError, UsageError
from lorry_registry.files.digests import shorten_digest
from lorry_registry.ledger.events import Event
from lorry_registry.maintenance.task_signing import SignedVersion, attest_history, sign_versions
from lorry_registry.registry import Registry
from lorry_registry.signing.keys import PASSWORD_VARIABLE, write_key_pair


@dataclass
class _Report:
    task: str
    versions: list[SignedVersion] = field(default_factory=list)
    attestation: Event | None = None
    problems: dict[str, LorryError] = field(default_factory=dict)


@click.command(
    "sign",
    epilog=format_examples(
        "lorry sign reviews",
        "lorry sign --all --json",
        "lorry sign --generate-key ~/.lorry-signing.key",
    ),
)
@click.argument("task", required=False, shell_complete=complete_tasks)
@click.option("--all", "every", is_flag=True, help="Sign every task in the store.")
@click.option("--reason", default="signed by hand", show_default=True, help="Why, for the history.")
@click.option(
    "--generate-key",
    "key_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a key pair to FILE and FILE.pub, and sign nothing.",
)
@json_option
def sign_tasks(task: str | None, every: bool, reason: str, key_file: Path | None, as_json: bool) -> None:
    """Sign adapters and histories that have no signature of yours yet.

    Every version is re-hashed before it is signed. The history gets one signed event, which stands for all
    events before it: look at 'lorry history' first. What is signed already stays as it is. The key is
    LORRY_SIGNING_KEY.

    --generate-key writes such a key (ECDSA on P-256, PKCS 8) to a file that only you can read, encrypted if
    LORRY_SIGNING_KEY_PASSWORD is set. Nothing is overwritten.
    """
    if key_file is not None:
        if task is not None or every:
            raise UsageError(
                "signs nothing", where="--generate-key", todo="generate the key first, then sign"
            )
        _generate_key(key_file, as_json)
        return
    if (task is None) != every:
        raise UsageError("name one task, or give --all", todo="lorry sign reviews, or lorry sign --all")
    registry = open_registry()
    tasks = registry.ledger.list_tasks() if task is None else [task]
    reports = [_sign_task(registry, name, reason) for name in tasks]
    if as_json:
        print_json([_describe(report) for report in reports])
    else:
        _print_reports(reports)
    fail_after({name: problem for report in reports for name, problem in report.problems.items()})


def _generate_key(file: Path, as_json: bool) -> None:
    password = load_settings().signing.password.get_secret_value()
    public = write_key_pair(file.absolute(), password)
    if as_json:
        print_json({"private_key": str(file.absolute()), "public_key": str(public.path), "id": public.id})
        return
    print_line(f"private key: {file}\npublic key:  {file}.pub\nid:          {public.id}")
    print_line(
        f"\nWho signs sets    LORRY_SIGNING_KEY={file.absolute()}\n"
        f"Who checks sets   LORRY_TRUSTED_KEYS={public.path} and LORRY_SIGNING_POLICY=require"
    )
    if not password:
        print_warning(f"the private key is not encrypted: {PASSWORD_VARIABLE} is not set")


def _sign_task(registry: Registry, task: str, reason: str) -> _Report:
    report = _Report(task)
    try:
        for signed in sign_versions(registry, task):
            report.versions.append(signed)
            if signed.problem is not None:
                report.problems[f"{task} v{signed.version.number}"] = signed.problem
        report.attestation = attest_history(registry, task, reason=reason)
    except UsageError:
        # No key: that is the same for every task.
        raise
    except LorryError as error:
        report.problems[task] = error
    return report


def _describe(report: _Report) -> dict[str, object]:
    return {
        "task": report.task,
        "versions": [
            {
                "version": signed.version.number,
                "adapter_id": signed.version.adapter_id,
                "outcome": _name_outcome(signed),
            }
            for signed in report.versions
        ],
        "attested_events": report.attestation.sequence - 1 if report.attestation else 0,
        "problems": [str(problem) for problem in report.problems.values()],
    }


def _name_outcome(signed: SignedVersion) -> str:
    if signed.problem is not None:
        return "not signed"
    return "signed now" if signed.is_new else "signed before"


def _print_reports(reports: list[_Report]) -> None:
    if not reports:
        click.echo("There is nothing to sign: no task has an adapter yet.")
        return
    from lorry_registry.cli.tables import Column, print_table

    columns = (Column("Task"), Column("What"), Column("Adapter"), Column("Outcome"))
    rows = []
    for report in reports:
        rows += [
            (
                report.task,
                f"v{signed.version.number}",
                shorten_digest(signed.version.adapter_id),
                _name_outcome(signed),
            )
            for signed in report.versions
        ]
        if report.attestation is not None:
            events = f"{report.attestation.sequence - 1} events"
            rows.append((report.task, "history", "", f"{events} signed for now"))
        elif report.task not in report.problems:
            rows.append((report.task, "history", "", "signed before"))
    print_table(columns, rows)
