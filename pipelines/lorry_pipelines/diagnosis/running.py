"""Checks side by side, each with a time limit: one that hangs neither holds up the others nor the command."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorry_pipelines.diagnosis.findings import Finding
from lorry_registry.errors import LorryError
from lorry_registry.text.scrubbing import scrub_text

_MAX_REASON = 300


@dataclass(frozen=True, slots=True)
class Check:
    """Something that is looked at.

    Attributes:
        section: The heading that its findings stand under.
        subject: What is looked at, in case that it cannot be.
        seconds: How long it may take.
        run: Looks, and returns what it found.
    """

    section: str
    subject: str
    seconds: float
    run: Callable[[], Sequence[Finding]]


def run_checks(checks: Sequence[Check]) -> list[tuple[str, Finding]]:
    """Run checks at once and return their findings, each with its section, in the order of the checks."""
    started = time.monotonic()
    answers: list[queue.Queue[Sequence[Finding]]] = [queue.Queue() for _ in checks]
    for check, answer in zip(checks, answers, strict=True):
        # The end of the process does not wait for a daemon.
        threading.Thread(target=lambda c=check, a=answer: a.put(_run(c)), daemon=True).start()
    found = []
    for check, answer in zip(checks, answers, strict=True):
        try:
            findings = answer.get(timeout=max(0.0, check.seconds - (time.monotonic() - started)))
        except queue.Empty:
            findings = [_report_silence(check)]
        found += [(check.section, finding) for finding in findings]
    return found


def _run(check: Check) -> Sequence[Finding]:
    try:
        return check.run()
    except LorryError as error:
        return [Finding.from_error(check.subject, error)]
    except Exception as error:  # noqa: BLE001 -- all that is broken on a machine, the rest is still looked at
        reason = scrub_text(f"{type(error).__name__}: {error}".partition("\n")[0])[:_MAX_REASON]
        return [Finding(check.subject, "failure", f"the check itself fails: {reason}")]


def _report_silence(check: Check) -> Finding:
    return Finding(
        check.subject,
        "failure",
        f"no answer within {check.seconds:g} s",
        "check that the address is right and that the network lets it through",
    )
