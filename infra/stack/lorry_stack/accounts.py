"""The user that PostgreSQL runs as: it refuses root."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lorry_registry.errors import UsageError

# Debian's package makes the first; every system has the second.
_CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """A user without rights."""

    name: str
    uid: int
    gid: int


def choose_account(folder: Path) -> Account | None:
    """Return the user that a database in a folder runs as; None: this process's own, if it is not root.

    Raises:
        UsageError: There is no user for it, or it could not reach the folder.
    """
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        account = Account(name, found.pw_uid, found.pw_gid)
        _require_reach(account, folder)
        return account
    raise UsageError(
        f"PostgreSQL refuses to run as root, and there is no user {' or '.join(_CANDIDATES)}",
        todo="run this as another user, or: apt-get install postgresql",
    )


def _require_reach(account: Account, folder: Path) -> None:
    reached = subprocess.run(  # noqa: S603
        ["/bin/sh", "-c", 'cd "$0"', str(folder)],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        capture_output=True,
        check=False,
    )
    if reached.returncode != 0:
        raise UsageError(
            f"PostgreSQL refuses to run as root, and the user {account.name} may not enter this folder",
            where=str(folder),
            todo="name another folder, for example: make stack STACK=/srv/lorry-stack; or run this as a user "
            "other than root",
        )
