"""What methods and optimisers that hold numbers in fewer bits need."""

import importlib.util

from lorry_registry.errors import MissingExtraError


def require_bitsandbytes(what: str, *, where: str, otherwise: str) -> None:
    """Refuse what needs bitsandbytes where that is not installed.

    Args:
        what: What needs it, and why.
        where: The field of the task file.
        otherwise: What to write instead.

    Raises:
        MissingExtraError: It is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError(what, where=where, todo=f"pip install 'lorry[quantization]', or {otherwise}")
