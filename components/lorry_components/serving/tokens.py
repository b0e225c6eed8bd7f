"""Bearer tokens: which requests may ask which tasks.

A file of tokens has a line for each: the SHA-256 of the token, and the tasks that it is for, or ``*`` for
all. The tokens themselves are 256 random bits, which is why one round of SHA-256 protects them.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lorry_registry.errors import UsageError
from lorry_registry.tasks.task_spec import TASK_NAME

_ALL = "*"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token allows.

    Attributes:
        digest: The SHA-256 of the token.
        tasks: The tasks that it is for; None: all.
    """

    digest: str
    tasks: frozenset[str] | None

    def allows(self, task: str) -> bool:
        """Return whether it is for a task."""
        return self.tasks is None or task in self.tasks


def find_grant(grants: Iterable[Grant], token: str) -> Grant | None:
    """Return what a token allows, in a time that does not depend on how much of it is right."""
    digest = _hash_token(token)
    # All of them are compared: how long it takes says nothing about where in the file a token is.
    found = [grant for grant in grants if hmac.compare_digest(grant.digest, digest)]
    return found[0] if found else None


def read_grants(path: Path) -> list[Grant]:
    """Return what each token of a file allows.

    Raises:
        UsageError: It cannot be read, has no token, or a line is none.
    """
    todo = f"run: lorry serve token --tokens {path}"
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path), todo=todo) from error
    grants = []
    for number, line in enumerate(lines, start=1):
        digest, *tasks = line.partition("#")[0].split() or [""]
        if not digest:
            continue
        is_sound = tasks == [_ALL] or all(re.fullmatch(TASK_NAME, task) for task in tasks)
        if not tasks or not is_sound or not _DIGEST.fullmatch(digest):
            # The line is not repeated: someone may have written a token into it.
            raise UsageError("is not the hash of a token and its tasks", where=f"{path}:{number}", todo=todo)
        grants.append(Grant(digest, None if tasks == [_ALL] else frozenset(tasks)))
    if not grants:
        raise UsageError("has no token", where=str(path), todo=todo)
    return grants


def add_token(path: Path, tasks: Iterable[str] | None) -> str:
    """Add a new token to a file, which only its owner can read if it is new, and return it.

    Args:
        path: The file.
        tasks: The tasks that it is for; None: all.

    Raises:
        UsageError: A task has no name that a task may have, or the file cannot be written.
    """
    named = [_ALL] if tasks is None else sorted(set(tasks))
    for task in named:
        if tasks is not None and not re.fullmatch(TASK_NAME, task):
            raise UsageError("is not the name of a task", where=task, todo="correct it")
    token = secrets.token_urlsafe(32)
    line = f"{_hash_token(token)} {' '.join(named)}\n"
    try:
        # One write at the end of the file: of two commands at once, neither loses the other's line.
        with os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "r+b") as stream:
            before = stream.read()
            stream.write((b"" if not before or before.endswith(b"\n") else b"\n") + line.encode())
    except OSError as error:
        raise UsageError(f"cannot be written: {error}", where=str(path), todo="name another file") from error
    return token


def _hash_token(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
