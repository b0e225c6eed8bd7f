"""The set-up of a process before it loads large libraries, and its end."""

import atexit
import contextlib
import gc
import logging
import os
import sys
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping
from types import TracebackType
from typing import Any, NoReturn

from lorry_registry.text.scrubbing import find_secrets, format_scrubbed, scrub_text

_CHATTY = (
    *("transformers", "mlflow", "alembic", "datasets", "bitsandbytes"),
    *("botocore", "boto3", "s3transfer", "urllib3", "httpx", "filelock", "kubernetes"),
)


def quiet_libraries() -> None:
    """Keep library chatter that is no news to a person out of a step's log and off a terminal."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Libraries tell each other here what they will remove one day; our tests turn warnings into errors.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


@contextlib.contextmanager
def hush_libraries() -> Iterator[None]:
    """Keep library chatter out of a process that is not ours, for as long as we load something in it."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        for logger in loggers:
            logger.setLevel(max(logger.level, logging.ERROR))
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def ease_garbage_collection() -> None:
    """Let the collector look less often at the million objects that large libraries are made of.

    With Python's defaults a step spends a second or two on them while it imports them.
    """
    gc.set_threshold(50_000, 20, 20)


def skip_iri_grammar() -> None:
    """Keep jsonschema, which kfp imports, from building a grammar of addresses that nothing here checks.

    It does so where ``rfc3987_syntax`` is installed, and that takes a second.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def leave_process(code: int) -> NoReturn:
    """End this process as Python does, but leave freeing its memory to the system.

    Threads are joined, exit handlers run and streams are flushed, in Python's order. Taking torch and
    transformers apart object by object, which is all that is left out, takes about a second.
    """
    # As multiprocessing ends a process that it forked.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        # What was printed is lost. Python reports that, and has an exit code for it.
        sys.exit(code)
    os._exit(code)


def release_memory() -> None:
    """Give back what nothing refers to any more, such as a model before the next one is loaded."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def conceal_secrets(environment: Mapping[str, str]) -> frozenset[str]:
    """Keep secrets out of everything that this process logs, and out of the traceback that may end it.

    Args:
        environment: Where the secrets are.

    Returns:
        The secrets.
    """
    secrets = find_secrets(environment)
    factory = logging.getLogRecordFactory()
    inner = factory.inner if isinstance(factory, _ScrubbingFactory) else factory
    logging.setLogRecordFactory(_ScrubbingFactory(inner, secrets))

    def print_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            sys.stderr.write(format_scrubbed(error.with_traceback(trace), secrets))

    sys.excepthook = print_uncaught
    return secrets


class _ScrubbingFactory:
    """Makes log records whose message and traceback hold no secrets, no matter who formats them."""

    def __init__(self, inner: Any, secrets: Collection[str]) -> None:
        self.inner = inner
        self._secrets = secrets

    def __call__(self, *arguments: Any, **keywords: Any) -> logging.LogRecord:
        record: logging.LogRecord = self.inner(*arguments, **keywords)
        message = record.getMessage()
        shown = scrub_text(message, self._secrets)
        if shown != message:
            record.msg, record.args = shown, ()
        if record.exc_info and record.exc_info[1] is not None:
            # Formatters take this text in place of the error's own.
            record.exc_text = format_scrubbed(record.exc_info[1], self._secrets).rstrip()
        return record
