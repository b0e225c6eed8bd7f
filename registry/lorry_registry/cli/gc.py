"""``lorry gc``: free what nothing refers to any more."""

import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click

from lorry_registry.cli.edge import fail_after, format_examples, json_option, open_registry, print_json
from lorry_registry.cli.prose import print_line, print_prose
from lorry_registry.files.digests import shorten_digest
from lorry_registry.maintenance.collection import (
    Finding,
    Kept,
    Plan,
    Rules,
    Sweep,
    plan_collection,
    sweep_store,
)
from lorry_registry.maintenance.collection.collection_findings import DEFAULT_GRACE, DEFAULT_KEEP_LAST, Kind
from lorry_registry.text.sizes import format_size

_DURATION = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_TITLES: dict[Kind, str] = {
    "version": "old version",
    "adapter": "unused adapter",
    "files": "stray files",
    "checkpoints": "checkpoints",
    "upload": "unfinished write",
    "lease": "lease",
    "tombstone": "tombstone",
}


def _parse_duration(ctx: click.Context, param: click.Parameter, text: str) -> timedelta:
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise click.BadParameter(f"{text!r} is not a duration; write 7d, 12h, 30m or 0s", ctx, param)
    return timedelta(**{_UNITS[match.group(2)]: int(match.group(1))})


@click.command(
    "gc",
    epilog=format_examples(
        "lorry gc                          what could be freed, and why",
        "lorry gc --apply                  free it",
        "lorry gc --keep-last 3 --grace 30d --apply",
        "lorry gc --json | jq .bytes",
    ),
)
@click.option("--apply", "apply_it", is_flag=True, help="Free it. Without this nothing is changed.")
@click.option(
    "--keep-last",
    type=click.IntRange(min=1),
    default=DEFAULT_KEEP_LAST,
    show_default=True,
    metavar="N",
    help="How many of its newest versions each task keeps.",
)
@click.option(
    "--grace",
    callback=_parse_duration,
    default=f"{DEFAULT_GRACE.days}d",
    show_default=True,
    metavar="DURATION",
    help="Keep what is younger, and tasks that were deleted more recently: 7d, 12h, 30m.",
)
@json_option
def collect_garbage(apply_it: bool, keep_last: int, grace: timedelta, as_json: bool) -> None:
    """Free what no task needs any more.

    Files of old versions and of deleted tasks, adapters that no task has, and what killed writers left. A
    task's champion, the version that a rollback would lead to, and its newest versions always stay, and so
    do files that are being written or read. The history stays: it says which files were freed, and when.
    """
    registry = open_registry()
    rules = Rules(keep_last=keep_last, grace=grace)
    plan = plan_collection(registry, rules)
    sweep = sweep_store(registry, plan, rules) if apply_it else None
    if as_json:
        print_json(_describe(registry.store.address, plan, sweep, rules))
    else:
        _print_result(plan, sweep, rules)
    fail_after(plan.problems | (sweep.problems if sweep else {}))


def _describe(address: str, plan: Plan, sweep: Sweep | None, rules: Rules) -> dict[str, Any]:
    findings = plan.findings if sweep is None else sweep.removed
    problems = plan.problems | (sweep.problems if sweep else {})
    return {
        "store": address,
        "applied": sweep is not None,
        "keep_last": rules.keep_last,
        "grace_seconds": int(rules.grace.total_seconds()),
        "bytes": sum(finding.size for finding in findings),
        "freed" if sweep else "would_free": [_describe_finding(finding) for finding in findings],
        "spared": [
            {**_describe_finding(finding), "reason": reason}
            for finding, reason in (sweep.spared if sweep else ())
        ],
        "kept_bytes": sum(kept.size for kept in plan.kept),
        "kept": [
            {
                "adapter_id": kept.adapter_id,
                "task": kept.task,
                "version": kept.version,
                "bytes": kept.size,
                "reason": kept.reason,
            }
            for kept in plan.kept
        ],
        "strange": plan.strange,
        "problems": {name: str(error) for name, error in problems.items()},
    }


def _describe_finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "name": finding.name,
        "task": finding.task,
        "version": finding.version,
        "adapter_id": finding.adapter_id,
        "bytes": finding.size,
        "written": finding.written.isoformat() if finding.written else None,
        "reason": finding.reason,
    }


def _print_result(plan: Plan, sweep: Sweep | None, rules: Rules) -> None:
    findings = plan.findings if sweep is None else sweep.removed
    if findings:
        _print_findings(findings)
    if sweep is not None:
        _print_spared(sweep)
    _print_kept(plan.kept)
    for key in plan.strange:
        print_line(f"left alone: {key} is no file of an adapter")
    size = format_size(sum(finding.size for finding in findings))
    count = f"{len(findings)} thing{'' if len(findings) == 1 else 's'}"
    if not findings:
        click.echo("There is nothing to free." if sweep is None else "Nothing was freed.")
    elif sweep is None:
        print_prose(
            f"{count}, {size}, could be freed. Nothing was changed; to free them: {_name_command(rules)}"
        )
    else:
        print_line(f"{count}, {size}, freed")


def _name_command(rules: Rules) -> str:
    """Return the command that frees what these rules found."""
    options = []
    if rules.keep_last != DEFAULT_KEEP_LAST:
        options.append(f"--keep-last {rules.keep_last}")
    if rules.grace != DEFAULT_GRACE:
        sizes = {unit: timedelta(**{_UNITS[unit]: 1}) for unit in ("dhms" if rules.grace else "m")}
        unit = next(unit for unit, size in sizes.items() if not rules.grace % size)
        options.append(f"--grace {rules.grace // sizes[unit]}{unit}")
    return " ".join(["lorry gc", *options, "--apply"])


def _print_findings(findings: Sequence[Finding]) -> None:
    from lorry_registry.cli.tables import NOTHING, Column, format_time, print_table

    columns = (
        Column("What"),
        Column("Task"),
        Column("Version", "right"),
        Column("Name", rank=1),
        Column("Size", "right"),
        Column("Written", rank=2),
        Column("Why", wraps=True, goes_below=True),
    )
    rows = [
        (
            _TITLES[finding.kind],
            finding.task or NOTHING,
            f"v{finding.version}" if finding.version else NOTHING,
            shorten_digest(finding.adapter_id) if finding.adapter_id else finding.name,
            format_size(finding.size),
            format_time(finding.written) if finding.written else NOTHING,
            finding.reason,
        )
        for finding in findings
    ]
    print_table(columns, rows)


def _print_spared(sweep: Sweep) -> None:
    for finding, reason in sweep.spared:
        name = f"{finding.task} v{finding.version}" if finding.version else finding.name
        print_prose(f"{name} stays after all: {reason}")


def _print_kept(kept: Sequence[Kept]) -> None:
    reasons: defaultdict[str, list[int]] = defaultdict(list)
    for each in kept:
        reasons[each.reason].append(each.size)
    for reason, sizes in sorted(reasons.items()):
        count = f"{len(sizes)} adapter{'' if len(sizes) == 1 else 's'}"
        print_prose(f"kept: {count}, {format_size(sum(sizes))}: {reason}")
