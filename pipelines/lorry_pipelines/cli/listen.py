"""``lorry listen``: events from S3 and MLflow become requests to retrain."""

import logging
import sys
import time
from pathlib import Path

import click

from lorry_registry.cli.edge import format_examples, load_settings, print_warning, read_environment
from lorry_registry.errors import UsageError

SECRET_VARIABLE = "LORRY_LISTEN_SECRET"  # noqa: S105 - the name of a variable
_LOCAL = ("127.0.0.1", "::1", "localhost")
_MOST_CONNECTIONS = 32
_PROGRAM = "from lorry_pipelines.cli import main; main()"


@click.command(
    "listen",
    epilog=format_examples(
        "LORRY_LISTEN_SECRET=... lorry listen tasks/*.yaml",
        "LORRY_LISTEN_SECRET=... lorry listen tasks/*.yaml --on kubeflow --budget 120",
    ),
)
@click.argument("files", nargs=-1, required=True, metavar="TASK.yaml...", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8095, show_default=True, type=click.IntRange(0, 65535))
@click.option("--on", "place", type=click.Choice(["local", "kubeflow"]), default="local", show_default=True)
@click.option("--budget", type=click.IntRange(min=1), metavar="MINUTES", help="What one retraining may take.")
def listen(files: tuple[Path, ...], host: str, port: int, place: str, budget: int | None) -> None:
    """Turn events of S3 and MLflow into retraining.

    POST /s3 takes S3's event notifications: a task whose data changed is retrained. POST /mlflow takes
    MLflow's webhooks: a tag lorry.retrain that is set on a version asks for its task. Each delivery is signed
    with the secret in LORRY_LISTEN_SECRET, and does its work once, however often it comes. Retraining is
    lorry retrain, one at a time; what was asked for and not done is done after a restart.
    """
    from lorry_pipelines.listening.application import Receiver, build_application
    from lorry_pipelines.listening.requests import RequestLog
    from lorry_pipelines.listening.signatures import SHORTEST_SECRET
    from lorry_pipelines.listening.worker import RetrainWorker
    from lorry_pipelines.scheduling import load_tasks
    from lorry_registry.stores import open_store

    try:
        import uvicorn
    except ModuleNotFoundError as error:
        from lorry_registry.errors import MissingExtraError

        raise MissingExtraError(
            "the server is not installed", where="lorry listen", todo="run: pip install 'lorry[listen]'"
        ) from error
    secret = read_environment().get(SECRET_VARIABLE, "")
    if len(secret) < SHORTEST_SECRET:
        raise UsageError(
            f"is {'too short' if secret else 'not set'}: senders sign with it",
            where=SECRET_VARIABLE,
            todo=f"set it to at least {SHORTEST_SECRET} characters, such as of: openssl rand -base64 32",
        )
    settings = load_settings()
    tasks = load_tasks(files, bases=settings.base_place)
    store = open_store(settings.store, settings.s3)
    store.check_writable()
    log = RequestLog(store)
    log.prune()
    if host not in _LOCAL:
        print_warning(f"{host} is open to others, without TLS: put a proxy in front that has it")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    budgeted = ["--budget", str(budget)] if budget is not None else []
    command = [sys.executable, "-P", "-c", _PROGRAM, "retrain", "--on", place, *budgeted]
    named = {task.name: str(path) for task, path in zip(tasks, files, strict=True)}
    worker = RetrainWorker(log, command, named)
    worker.start()
    try:
        uvicorn.run(
            build_application(tasks, Receiver(log, secret, worker.wake, time.time)),
            host=host,
            port=port,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=10,
            server_header=False,
            log_config=None,
        )
    finally:
        worker.stop()
