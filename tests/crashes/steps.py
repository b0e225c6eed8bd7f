"""The steps at which a process can be killed: found by watching what an operation really does.

Nothing of this is in the product. A child process watches its own writes, to files, to S3 and to MLflow, and
gives each moment before, within and after one of them a name; at a chosen moment it kills itself.
"""

import contextlib
import functools
import http.client
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lorry_registry.stores import LocalStore

_FILE_WRITES = ((os, "link"), (os, "fsync"), (Path, "replace"), (Path, "rename"), (Path, "unlink"))
_STORE_WRITES = ("create", "upload", "compare_and_swap", "download", "overwrite", "delete")
_MLFLOW_WRITES = ("create_", "set_", "delete_", "log_", "update_", "finalize_")
_S3_READS = ("Get", "Head", "List")


class Watch:
    """Counts the steps of this process, writes down the name of each, and ends it at one.

    Args:
        log: The descriptor of a pipe or file that takes a name a line.
        fatal: The step at which the process is killed, counted from 1; None: at none.
    """

    def __init__(self, log: int, fatal: int | None) -> None:
        self._log = log
        self._fatal = fatal
        self._places: list[str] = []
        self._is_armed = False
        self.count = 0

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Count what happens in this block only."""
        self._is_armed = True
        try:
            yield
        finally:
            self._is_armed = False

    @contextlib.contextmanager
    def inside(self, place: str) -> Iterator[None]:
        """Name the steps of this block after what is being done."""
        self._places.append(place)
        try:
            yield
        finally:
            self._places.pop()

    def reach(self, step: str) -> None:
        """Be at a step; only those inside of a named place count."""
        if not self._is_armed or not self._places:
            return
        self.count += 1
        os.write(self._log, f"{self._places[-1]}: {step}\n".encode())
        if self.count == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def surround(self, owner: Any, name: str, step: str) -> None:
        """Make the moments before and after a function steps."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.reach(f"before {step}")
            result = original(*arguments, **options)
            self.reach(f"after {step}")
            return result

        setattr(owner, name, wrapped)


def watch_everything(watch: Watch) -> None:
    """Watch all that this process writes from now on. There is no way back: the process is a child's."""
    _watch_files(watch)
    _watch_store(watch, LocalStore)
    _watch_s3(watch)
    _watch_mlflow(watch)


def describe_key(key: str) -> str:
    """Return what a key is for, the same for all adapters and tasks."""
    parts = key.split("/")
    if parts[0] == "adapters" and len(parts) == 3:
        return "manifest" if parts[2] == "manifest.json" else "adapter file"
    if parts[0] == "tasks" and len(parts) > 2:
        return {"head.json": "head", "history": "event"}.get(parts[2], parts[2])
    return parts[-1] if len(parts) == 1 else parts[0].rstrip("s")


def _watch_store(watch: Watch, store: Any) -> None:
    for name in _STORE_WRITES:
        setattr(store, name, _name_place(watch, getattr(store, name), name))
    delete_all = store.delete_all

    @functools.wraps(delete_all)
    def wrapped(self: Any, keys: Sequence[str]) -> Any:
        with watch.inside(f"delete_all {describe_key(keys[0]) if keys else 'nothing'}"):
            return delete_all(self, keys)

    store.delete_all = wrapped


def _name_place(watch: Watch, original: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapped(store: Any, key: str, *arguments: Any, **options: Any) -> Any:
        with watch.inside(f"{name} {describe_key(key)}"):
            return original(store, key, *arguments, **options)

    return wrapped


def _watch_files(watch: Watch) -> None:
    for owner, name in _FILE_WRITES:
        watch.surround(owner, name, name)
    copy = shutil.copyfile

    def copy_half(source: Any, target: Any, **options: Any) -> Any:
        content = Path(source).read_bytes()
        with Path(target).open("wb") as stream:
            stream.write(content[: len(content) // 2])
        watch.reach("within copyfile")
        result = copy(source, target, **options)
        watch.reach("after copyfile")
        return result

    def write_half(path: Path, content: bytes) -> int:
        with path.open("wb") as stream:
            stream.write(content[: len(content) // 2])
            stream.flush()
            watch.reach("within write")
            stream.write(content[len(content) // 2 :])
        watch.reach("after write")
        return len(content)

    shutil.copyfile = copy_half
    Path.write_bytes = write_half  # type: ignore[assignment,method-assign]


def _watch_s3(watch: Watch) -> None:
    from botocore.client import BaseClient

    from lorry_registry.stores.s3_store import S3Store

    _watch_store(watch, S3Store)
    call, send = BaseClient._make_api_call, http.client.HTTPConnection.send
    sending: list[str] = []

    def watch_call(client: Any, operation: str, parameters: Any) -> Any:
        if operation.startswith(_S3_READS):
            return call(client, operation, parameters)
        watch.reach(f"before {operation}")
        sending.append(operation)
        try:
            answer = call(client, operation, parameters)
        finally:
            sending.pop()
        watch.reach(f"after {operation}")
        return answer

    def send_half(connection: Any, data: Any) -> None:
        if not sending or not isinstance(data, bytes) or len(data) < 2:
            send(connection, data)
            return
        send(connection, data[: len(data) // 2])
        watch.reach(f"within {sending[-1]}")
        send(connection, data[len(data) // 2 :])

    BaseClient._make_api_call = watch_call
    http.client.HTTPConnection.send = send_half  # type: ignore[method-assign]


def _watch_mlflow(watch: Watch) -> None:
    from mlflow.tracking import MlflowClient
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    for name in dir(MlflowClient):
        if name.startswith(_MLFLOW_WRITES):
            _watch_call(watch, MlflowClient, name)
    event.listen(Engine, "commit", lambda _: watch.reach("before commit"))


def _watch_call(watch: Watch, owner: Any, name: str) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        with watch.inside(f"MLflow {name}"):
            watch.reach("before")
            result = original(*arguments, **options)
            watch.reach("after")
            return result

    setattr(owner, name, wrapped)
