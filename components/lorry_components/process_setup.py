"""What a process of Lorry's does before it loads large libraries."""

import atexit
import gc
import logging
import os
import warnings


def quiet_libraries() -> None:
    """Keep library chatter that is no news to a person out of a step's log and off a terminal."""
    for name in ("transformers", "mlflow", "alembic", "datasets", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Libraries tell each other here what they will remove one day; our tests turn warnings into errors.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def ease_garbage_collection() -> None:
    """Let the collector look less often at the million objects that large libraries are made of.

    With Python's defaults a step spends three seconds on them, while it imports them and at its end.
    """
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)
