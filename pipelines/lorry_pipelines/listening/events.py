"""From the body of a delivery to the tasks that it concerns."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from lorry_registry.digests import digest_document
from lorry_registry.task_spec import TaskSpec

RETRAIN_TAG = "lorry.retrain"
"""The tag of a version in MLflow that asks for its task to be trained again."""

_S3 = "s3://"
_MOST_RECORDS = 1000


@dataclass(frozen=True, slots=True)
class Request:
    """What an event asks for.

    Attributes:
        id: The same for the same event, however often it is delivered.
        source: What it came from: ``s3`` or ``mlflow``.
        tasks: The tasks that it concerns, sorted.
    """

    id: str
    source: str
    tasks: tuple[str, ...]


def read_s3_event(document: Any, tasks: Collection[TaskSpec]) -> Request | None:
    """Return the request of an S3 event notification; None: it concerns no task.

    An object concerns the tasks whose data it is, or lies below, when it was written or removed.

    Args:
        document: The notification, in AWS' form, which MinIO and SeaweedFS have as well.
        tasks: The tasks that there are.

    Raises:
        ValueError: It is none.
    """
    records = document.get("Records") if isinstance(document, Mapping) else None
    if not isinstance(records, list) or not 0 < len(records) <= _MOST_RECORDS:
        raise ValueError("not an S3 event notification")
    changed = [found for record in records if (found := _read_record(record)) is not None]
    concerned = {task.name for task in tasks if any(_holds(task, bucket, key) for bucket, key, _ in changed)}
    if not concerned:
        return None
    return Request(_name("s3", sorted(changed)), "s3", tuple(sorted(concerned)))


def read_mlflow_event(document: Any, delivery: str, tasks: Collection[TaskSpec]) -> Request | None:
    """Return the request of an MLflow webhook; None: it asks for nothing.

    What asks is a tag ``lorry.retrain`` that somebody sets on a version. New versions ask for nothing: each
    training registers one.

    Args:
        document: The webhook's payload.
        delivery: The sender's id of the delivery.
        tasks: The tasks that there are.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("data"), Mapping):
        raise ValueError("not an MLflow webhook")
    data = document["data"]
    is_asked = (document.get("entity"), document.get("action")) == ("model_version_tag", "set")
    if not is_asked or data.get("key") != RETRAIN_TAG:
        return None
    name = data.get("name")
    if name not in {task.name for task in tasks}:
        return None
    return Request(_name("mlflow", [delivery]), "mlflow", (str(name),))


def _read_record(record: Any) -> tuple[str, str, str] | None:
    """Return bucket, key and version of an object that was written or removed; None: it was neither."""
    try:
        event, described = str(record["eventName"]), record["s3"]
        bucket, entry = described["bucket"]["name"], described["object"]
        key = entry["key"]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError("not an S3 event notification") from error
    if not isinstance(bucket, str) or not isinstance(key, str):
        raise ValueError("not an S3 event notification")
    if not event.removeprefix("s3:").startswith(("ObjectCreated", "ObjectRemoved")):
        return None
    mark = entry.get("sequencer") or entry.get("versionId") or entry.get("eTag") or record.get("eventTime")
    # Keys in notifications are encoded as in a form.
    return bucket, unquote_plus(key), str(mark)


def _holds(task: TaskSpec, bucket: str, key: str) -> bool:
    source = task.data.source
    if not source.startswith(_S3):
        return False
    own_bucket, _, prefix = source.removeprefix(_S3).partition("/")
    prefix = prefix.rstrip("/")
    return bucket == own_bucket and (not prefix or key == prefix or key.startswith(f"{prefix}/"))


def _name(source: str, parts: Iterable[Any]) -> str:
    return digest_document(
        {"source": source, "event": [list(p) if isinstance(p, tuple) else p for p in parts]}
    )[7:39]
