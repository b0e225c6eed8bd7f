"""The name of the acting user, which the ledger and MLflow record."""

import getpass


def name_user() -> str:
    """Return the login name, or ``unknown`` where the system has none, as in a container with any user id."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
