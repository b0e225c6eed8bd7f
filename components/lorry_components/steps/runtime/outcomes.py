"""The outcome of each step, kept for the run's report, so that one failed task does not stop the others.

On a cluster a failed iteration stops its siblings (kubeflow/pipelines#7330). So a step that fails records the
reason and ends normally; the later steps of the same task see that there is nothing for them to do and end as
well; the exit step reports the failure and makes the run fail in the end.

Layout in the store::

    runs/<run>/claim.json                 {token}, written first: no other run may have the id
    runs/<run>/tasks/<task>/<step>.json   an outcome
    runs/<run>/tasks/<task>/running.json  how far the step is that runs now
"""

import logging
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from lorry_registry.errors import ConflictError, LorryError, StoreError
from lorry_registry.files.digests import canonical_json
from lorry_registry.stores import Store
from lorry_registry.text.scrubbing import format_scrubbed, scrub_text

STEPS = ("prepare_data", "finetune", "evaluate", "gate", "register")
_HEARTBEAT = "running"
Status = Literal["done", "current", "failed"]
# The output of a step in the graph: whether there is work for the steps after it.
PROCEED, STOP = "proceed", "stop"

_DISK_TODO = "check that the disk has space and that this user may write there, and run again"
_LOGGER = logging.getLogger(__name__)


SILENT_END = "Killed"
"""The error of a step that left no outcome."""


class Failure(BaseModel):
    """Why a step failed.

    Attributes:
        error: The class of the error.
        message: The reason, for people.
        exit_code: The exit code for this class of errors.
        trace: Where it happened; empty for errors that the message explains.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str
    message: str
    exit_code: int
    trace: str = ""

    @property
    def is_silent(self) -> bool:
        """Whether the step ended without saying why, as one that was killed does."""
        return self.error == SILENT_END


class Outcome(BaseModel):
    """The outcome of one step of one task.

    Attributes:
        task: The task.
        step: The step.
        status: ``done``; ``current`` when there was nothing to do; ``failed``.
        started_at: When it started, in UTC.
        seconds: How long it took.
        details: Shown in the report.
        failure: Why it failed, if it did.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    step: str
    status: Status
    started_at: datetime
    seconds: float
    details: dict[str, JsonValue] = {}
    failure: Failure | None = None


class Heartbeat(BaseModel):
    """How far the step of a task is that runs now.

    Attributes:
        step: The step.
        done: How much of it is done.
        total: How much there is; 0: that is not known yet.
        note: What else is known, such as the loss.
        started_at: When the step started, in UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    done: int
    total: int
    note: str = ""
    started_at: datetime


class Nothing(Exception):  # noqa: N818 - not an error: the task is up to date
    """Raised by a step's body when there is nothing to do; the reason is its text.

    Args:
        reason: Why.
        is_refused: Whether what is there was refused by the gate, or is no longer in use.
        version: The version that is up to date; None: it is not known.
    """

    def __init__(self, reason: str, *, is_refused: bool = False, version: int | None = None) -> None:
        super().__init__(reason)
        self.is_refused = is_refused
        self.version = version


class RunRecord:
    """The outcomes of one run, in a store.

    Args:
        store: Where they are kept.
        run: The run's id.
        secrets: What no outcome may show.
    """

    def __init__(self, store: Store, run: str, *, secrets: Collection[str] = ()) -> None:
        self._store = store
        self.run = run
        self.secrets = secrets

    def claim(self) -> None:
        """Take the run's folder in the store, before anything else is written there.

        Raises:
            ConflictError: It is another run's: the two would read each other's outcomes.
            StoreError: The store cannot be read or written.
        """
        folder = f"runs/{self.run}"
        try:
            self._store.create(f"{folder}/claim.json", canonical_json({"token": uuid.uuid4().hex}))
        except ConflictError as error:
            raise ConflictError(
                f"the run {self.run} exists already, and its outcomes would be mixed with those of this one",
                where=self._store.locate(folder),
                todo="start again: each run gets an id of its own",
            ) from error

    def write(self, outcome: Outcome) -> None:
        """Keep an outcome; that of a retried step replaces the former one."""
        content = canonical_json(outcome.model_dump(mode="json"))
        self._store.replace(self._key(outcome.task, outcome.step), content)

    def read(self, task: str) -> list[Outcome]:
        """Return the outcomes of a task, in the order of the steps."""
        stored = (self._store.read(self._key(task, step)) for step in STEPS)
        return [Outcome.model_validate_json(document.content) for document in stored if document]

    def read_from(self, task: str, known: Sequence[Outcome]) -> list[Outcome]:
        """Return the outcomes of a task whose first ones are known: only those of later steps are read."""
        outcomes = list(known)
        for step in STEPS[len(outcomes) :]:
            document = self._store.read(self._key(task, step))
            if document is None:
                break
            outcomes.append(Outcome.model_validate_json(document.content))
        return outcomes

    def write_heartbeat(self, task: str, beat: Heartbeat) -> None:
        """Keep how far the running step of a task is, in place of what was kept before."""
        self._store.overwrite(self._key(task, _HEARTBEAT), canonical_json(beat.model_dump(mode="json")))

    def read_heartbeat(self, task: str) -> Heartbeat | None:
        """Return how far the running step of a task was last; None: none has started, or none reported."""
        document = self._store.read(self._key(task, _HEARTBEAT))
        return Heartbeat.model_validate_json(document.content) if document else None

    def list_tasks(self) -> list[str]:
        """Return the tasks that left an outcome, sorted."""
        return self._store.list_children(f"runs/{self.run}/tasks")

    def has_stopped(self, task: str, step: str) -> bool:
        """Return whether an earlier step of a task failed or had nothing to do."""
        earlier = STEPS[: STEPS.index(step)]
        return any(outcome.status != "done" for outcome in self.read(task) if outcome.step in earlier)

    def _key(self, task: str, step: str) -> str:
        return f"runs/{self.run}/tasks/{task}/{step}.json"


def run_step(record: RunRecord, task: str, step: str, body: Callable[[], dict[str, JsonValue]]) -> str:
    """Run the body of a step and keep its outcome.

    Args:
        record: Where the outcome is kept.
        task: The task.
        step: The step.
        body: Does the work and returns details for the report.

    Returns:
        ``PROCEED`` or ``STOP``.
    """
    if record.has_stopped(task, step):
        _LOGGER.info("%s: %s has nothing to do, since an earlier step stopped", task, step)
        return STOP
    started_at, clock = datetime.now(UTC), time.perf_counter()

    def finish(status: Status, **parts: object) -> Outcome:
        return Outcome.model_validate(
            {"task": task, "step": step, "status": status, "started_at": started_at}
            | {"seconds": time.perf_counter() - clock, **parts}
        )

    try:
        outcome = finish("done", details=body())
    except Nothing as reason:
        refused = {"refused": True} if reason.is_refused else {}
        version = {"version": reason.version} if reason.version is not None else {}
        outcome = finish("current", details={"reason": str(reason), **refused, **version})
    except Exception as error:  # noqa: BLE001 - it is logged below, with its traceback but without secrets
        # Only this task fails; the run continues and reports it.
        trace = format_scrubbed(error, record.secrets)
        _LOGGER.error("%s: %s failed\n%s", task, step, trace)  # noqa: TRY400
        outcome = finish("failed", failure=describe_failure(error, step, secrets=record.secrets))
    record.write(outcome)
    return PROCEED if outcome.status == "done" else STOP


def describe_failure(error: Exception, step: str, *, secrets: Collection[str] = ()) -> Failure:
    """Describe an error for people and for programs; no secret is in the description.

    Args:
        error: The error.
        step: The step that failed, in case the error names no place.
        secrets: Values that must not appear in the description.
    """
    if isinstance(error, LorryError):
        return Failure(
            error=type(error).__name__, message=scrub_text(str(error), secrets), exit_code=error.exit_code
        )
    described: LorryError | str = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.strerror:
        # A full disk, or a folder without permission, has another remedy than a defect.
        described = StoreError(error.strerror, where=str(error.filename or step), todo=_DISK_TODO)
    return Failure(
        error=type(error).__name__,
        message=scrub_text(str(described), secrets),
        exit_code=described.exit_code if isinstance(described, LorryError) else LorryError.exit_code,
        trace=format_scrubbed(error, secrets)[-4000:],
    )
