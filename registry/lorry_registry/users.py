"""Who does something: named in the ledger and in MLflow."""

import getpass


def name_user() -> str:
    """Return the login name; ``unknown`` where the system knows none, as in a container with any user id."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
