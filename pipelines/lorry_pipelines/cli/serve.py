"""``lorry serve``: the champions of tasks over HTTP."""

import importlib.metadata
import importlib.util
import ipaddress

import click

from lorry_registry.cli.edge import (
    complete_tasks,
    format_examples,
    load_settings,
    open_registry,
    print_warning,
)
from lorry_registry.cli.prose import print_line
from lorry_registry.digest_cache import DigestCache
from lorry_registry.errors import MissingExtraError, UsageError
from lorry_registry.registry import Registry


@click.command(epilog=format_examples("lorry serve", "lorry serve reviews films --port 9000"))
@click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=complete_tasks)
@click.option("--host", default="127.0.0.1", show_default=True, help="The loopback address to listen at.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="The port.")
@click.option(
    "--grace",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="For how many seconds requests are finished after SIGTERM.",
)
def serve_tasks(tasks: tuple[str, ...], host: str, port: int, grace: int) -> None:
    """Serve the champions of tasks over HTTP: all of the registry on one base, or those named.

    Each adapter is verified as by lorry predict; what fails is refused, and the others are served. There are
    no logins yet: only loopback addresses are accepted.
    """
    if not _is_loopback(host):
        raise UsageError(
            "there are no logins, and others could reach this address",
            where=f"--host {host}",
            todo="use 127.0.0.1, behind a proxy that asks for a login where others need it",
        )
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise MissingExtraError(
            "starlette and uvicorn are not installed",
            where="lorry serve",
            todo="run: pip install 'lorry[serve]'",
        )
    _serve(open_registry(), tasks, host, port, grace)


def _serve(registry: Registry, tasks: tuple[str, ...], host: str, port: int, grace: int) -> None:
    from lorry_components.process_setup import ease_garbage_collection, quiet_libraries
    from lorry_components.processors import limit_own_threads

    quiet_libraries()
    ease_garbage_collection()
    limit_own_threads()
    from lorry_components.models.bases import resolve_base
    from lorry_components.serving.application import Service
    from lorry_components.serving.batching import Batcher
    from lorry_components.serving.catalogue import Catalogue, choose_tasks
    from lorry_components.serving.engine import compute_batch
    from lorry_components.serving.requests import Limits
    from lorry_components.serving.server import run_server
    from lorry_components.serving.shared_bases import SharedBases

    settings = load_settings()
    digest = DigestCache(settings.digests).digest_file
    bases = SharedBases(lambda spec: resolve_base(spec.find_in(settings.base_place), digest=digest))
    catalogue = Catalogue(registry, bases)
    catalogue.load(choose_tasks(registry, tasks))
    for task, error in catalogue.refused.items():
        print_warning(f"{task} is not served: {error}")
    if not catalogue.versions:
        raise next(iter(catalogue.refused.values()))
    for served in catalogue.versions.values():
        print_line(f"{served.task} v{served.version} {served.adapter_id}", err=True)
    print_line(f"serving at http://{host}:{port}; the routes are in /openapi.json", err=True)
    limits = Limits()
    service = Service(catalogue, Batcher(compute_batch), limits, importlib.metadata.version("lorry"))
    run_server(service.build_application(), host=host, port=port, grace=grace, limits=limits)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
