"""The store: whether it is reached, what may be done there, and whose it is."""

import dataclasses
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lorry_pipelines.diagnosis.findings import Finding, Level
from lorry_registry.errors import LorryError
from lorry_registry.ledger.registry_identity import read_id
from lorry_registry.settings import Settings
from lorry_registry.stores import LocalStore, Store, open_store
from lorry_registry.text.addresses import hide_secrets
from lorry_registry.text.sizes import format_size

SUBJECT = "store"
# Below the first a training is likely to fail at its first checkpoint; below the second soon.
_LEAST_BYTES, _FEW_BYTES = 100 << 20, 2 << 30
_READ_SECONDS = 5.0
_READ_ONLY = "resolve, pull and predict work; run, promote and rollback do not"


def check_store(settings: Settings) -> Sequence[Finding]:
    """Look at the store that the settings name."""
    if settings.store.partition("://")[0] == "s3":
        return _check_s3(settings)
    store = open_store(settings.store, settings.s3)
    findings = _check_folder(store.root) if isinstance(store, LocalStore) else []
    if any(finding.level == "failure" for finding in findings):
        return findings
    return [*findings, _describe_registry(store)]


def check_disk(subject: str, folder: Path) -> Finding:
    """Say how much room there is where a folder lies, or would lie."""
    present = _find_present(folder)
    usage = shutil.disk_usage(present)
    text = f"{format_size(usage.free)} free of {format_size(usage.total)} at {present}"
    details = {"free_bytes": usage.free, "total_bytes": usage.total}
    if usage.free >= _FEW_BYTES:
        return Finding(subject, "ok", text, details=details)
    level: Level = "failure" if usage.free < _LEAST_BYTES else "warning"
    return Finding(subject, level, text, "make room, or set LORRY_HOME or LORRY_STORE", details)


def _check_folder(root: Path) -> list[Finding]:
    disk = check_disk("store's disk", root)
    if not root.exists():
        present = _find_present(root)
        if not present.is_dir() or not os.access(present, os.W_OK | os.X_OK):
            todo = f"make {root}, or set LORRY_STORE"
            return [Finding(SUBJECT, "failure", f"{root} is not there and cannot be made", todo)]
        return [Finding(SUBJECT, "ok", f"{root}: made by the first run", details={"exists": False}), disk]
    if not root.is_dir() or not os.access(root, os.R_OK | os.X_OK):
        todo = "correct its permissions, or set LORRY_STORE"
        return [Finding(SUBJECT, "failure", f"{root} is no folder that this user may read", todo)]
    if not os.access(root, os.W_OK):
        return [Finding(SUBJECT, "warning", f"{root} cannot be written: {_READ_ONLY}"), disk]
    LocalStore(root).check_writable()
    return [Finding(SUBJECT, "ok", f"{root}: read and write", details={"exists": True}), disk]


def _check_s3(settings: Settings) -> list[Finding]:
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        from lorry_registry.retries import RetryPolicy
        from lorry_registry.stores.s3_client import make_client
        from lorry_registry.stores.s3_errors import explain_error
        from lorry_registry.stores.s3_store import S3Store
    except ModuleNotFoundError as error:
        return [Finding(SUBJECT, "failure", f"{error.name} is not installed", "pip install lorry")]
    store = S3Store(settings.store, settings.s3, retries=RetryPolicy(attempts=1), read_seconds=_READ_SECONDS)
    prefix = store.address.removeprefix(f"s3://{store.bucket}").strip("/")
    try:
        client = make_client(attempts=1, read_seconds=_READ_SECONDS)
        credentials = boto3.Session().get_credentials()
    except (BotoCoreError, ValueError) as error:
        raise explain_error(error, verb="ask", action="s3", where=store.address, endpoint="S3") from None
    endpoint, source = client.meta.endpoint_url, credentials.method if credentials else "none"
    place = _Place(client, store.bucket, f"{prefix}/" if prefix else "", settings.s3.list_parameters())

    def explain(verb: str, action: str, error: Exception) -> LorryError:
        return explain_error(error, verb=verb, action=action, where=store.address, endpoint=endpoint)

    # Listing comes first: it tells a server that is not there from a right that is missing.
    try:
        place.list_keys()
    except (BotoCoreError, ClientError, ValueError) as error:
        return [Finding.from_error(SUBJECT, explain("list", "s3:ListBucket", error))]
    reached = Finding(
        SUBJECT,
        "ok",
        f"{store.address} at {hide_secrets(endpoint)}, with credentials from {source}",
        details={"endpoint": hide_secrets(endpoint), "credentials": source},
    )
    rights: list[tuple[str, str, Callable[[], object]]] = [
        ("read", "s3:GetObject", lambda: store.read("registry.json")),
        ("write", "s3:PutObject", place.write_under_conditions),
        ("delete", "s3:DeleteObject", place.write_and_delete),
    ]
    findings, held = [reached], ["list"]
    for verb, action, attempt in rights:
        try:
            attempt()
        except LorryError as error:
            findings.append(Finding.from_error(f"store: {verb}", error))
        except (BotoCoreError, ClientError) as error:
            findings.append(_describe_refusal(verb, explain(verb, action, error)))
        else:
            held.append(verb)
        if verb == "write" and verb not in held:
            break
    text = f"{', '.join(held)}" + ("; conditional writes are kept" if "write" in held else "")
    findings.insert(1, Finding("store: rights", "ok", text, details={"rights": list(held)}))
    if "read" in held:
        findings.append(_describe_registry(store))
    return findings


class _Place:
    """A prefix of a bucket, where keys of the doctor's own are written and removed."""

    def __init__(self, client: Any, bucket: str, folder: str, parameters: dict[str, str]) -> None:
        self._client = client
        self._bucket = bucket
        self._folder = folder
        self._parameters = parameters

    def list_keys(self) -> None:
        self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._folder, MaxKeys=1)

    def write_under_conditions(self) -> None:
        from lorry_registry.stores.s3_conditions import check_conditions
        from lorry_registry.stores.s3_store import RETRIES

        retries = dataclasses.replace(RETRIES, attempts=2)
        check_conditions(
            self._client, self._bucket, self._folder, retries=retries, parameters=self._parameters
        )

    def write_and_delete(self) -> None:
        # A hidden name, which no key of a store can have.
        place = {"Bucket": self._bucket, "Key": f"{self._folder}.lorry-doctor-{uuid.uuid4().hex}"}
        self._client.put_object(**place, Body=b"", **self._parameters)
        self._client.delete_object(**place)


def _describe_refusal(verb: str, error: LorryError) -> Finding:
    consequence = {"write": f"; {_READ_ONLY}", "delete": "; nothing that is old can be removed"}.get(verb, "")
    finding = Finding.from_error(f"store: {verb}", error, "failure" if verb == "read" else "warning")
    return Finding(finding.subject, finding.level, finding.text + consequence, finding.todo)


def _describe_registry(store: Store) -> Finding:
    try:
        registry_id = read_id(store)
        tasks = store.list_children("tasks")
    except LorryError as error:
        return Finding.from_error("registry", error)
    count = f"{len(tasks):,} task{'' if len(tasks) == 1 else 's'}"
    text = f"{count}, id {registry_id}" if registry_id else f"{count}, no id yet: the first run makes it"
    return Finding("registry", "ok", text, details={"id": registry_id, "tasks": len(tasks)})


def _find_present(path: Path) -> Path:
    """Return a path, or the nearest of its parents that is there."""
    return next(parent for parent in (path, *path.parents) if parent.exists())
