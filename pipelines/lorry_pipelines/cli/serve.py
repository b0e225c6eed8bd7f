"""``lorry serve``: the champions of tasks over HTTP."""

import importlib.metadata
import importlib.util
import ipaddress
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from lorry_registry.cli.edge import (
    complete_tasks,
    fail_after,
    format_examples,
    load_settings,
    open_registry,
    print_warning,
)
from lorry_registry.cli.prose import print_line
from lorry_registry.errors import LorryError, MissingExtraError, UsageError
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.registry import Registry
from lorry_registry.tasks.input_specs import BaseSpec

if TYPE_CHECKING:
    from lorry_components.models.bases import Base
    from lorry_components.serving.catalogue import Catalogue, ServedVersion

_Command = TypeVar("_Command", bound="Callable[..., Any] | click.Command")


def _tokens_option(*, required: bool = False) -> Callable[[_Command], _Command]:
    """Return the option that names the file of tokens."""
    return click.option(
        "--tokens",
        type=click.Path(dir_okay=False, path_type=Path),
        required=required,
        help="The file with the hash and the tasks of each token.",
    )


@click.command()
@click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=complete_tasks)
@click.option("--all", "is_for_all", is_flag=True, help="A token for all tasks, also of those to come.")
@_tokens_option(required=True)
def add_token(tasks: tuple[str, ...], is_for_all: bool, tokens: Path) -> None:
    """Make a token for tasks, print it once, and add its hash to a file.

    Remove a line to withdraw its token. A server reads the file when it starts.
    """
    from lorry_components.serving import tokens as files

    if bool(tasks) == is_for_all:
        raise UsageError(
            "name the tasks that the token is for, or give --all",
            where="lorry serve token",
            todo="choose one",
        )
    click.echo(files.add_token(tokens, None if is_for_all else tasks))


class _ServeCommand(click.Command):
    """``lorry serve``, with ``token`` below it; a task of that name is served by ``lorry serve -- token``."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] == ["token"]:
            return add_token.make_context(f"{info_name} token", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)


@click.command(
    cls=_ServeCommand,
    epilog=format_examples(
        "lorry serve",
        "lorry serve reviews films --port 9000",
        "lorry serve token --tokens tokens.txt reviews    make a token, print it once",
        "lorry serve --tokens tokens.txt --host 0.0.0.0",
        "lorry serve --check http://127.0.0.1:8080    does it answer as registered?",
    ),
)
@click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=complete_tasks)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="The port; 0: a free one."
)
@click.option(
    "--grace",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="For how many seconds requests are finished after SIGTERM.",
)
@click.option(
    "--poll",
    type=click.FloatRange(0, min_open=True),
    default=5,
    show_default=True,
    help="After how many seconds the ledger is asked for new champions.",
)
@click.option("--access-log", is_flag=True, help="Print a line of JSON for each request, without texts.")
@_tokens_option()
@click.option(
    "--check",
    "checked",
    metavar="URL",
    help="Serve nothing; ask this lorry serve or vLLM for what was recorded with each adapter, and compare.",
)
@click.option("--token-file", type=click.File(), help="With --check: the file with the token; - is stdin.")
@click.option("--no-auth", is_flag=True, help="Ask for no token, at any address.")
def serve_tasks(
    tasks: tuple[str, ...],
    host: str,
    port: int,
    grace: int,
    poll: float,
    access_log: bool,
    tokens: Path | None,
    no_auth: bool,
    checked: str | None,
    token_file: IO[str] | None,
) -> None:
    """Serve the champions of tasks over HTTP: all of the registry on one base, or those named.

    Each adapter is verified as by lorry predict; what fails is refused, and the others are served. Without
    --tokens only this machine is answered.
    """
    if checked is not None:
        _check(open_registry(), checked, tasks, token_file.read().strip() if token_file else "")
        return
    if tokens is not None and no_auth:
        raise UsageError("--tokens and --no-auth exclude each other", where="lorry serve", todo="choose one")
    if tokens is None and not no_auth and not _is_loopback(host):
        raise UsageError(
            "anybody who can reach this address would be answered",
            where=f"--host {host}",
            todo="give --tokens FILE (lorry serve token makes it), or --no-auth behind a proxy that asks",
        )
    needed = ("starlette", "uvicorn", "prometheus_client")
    if any(importlib.util.find_spec(name) is None for name in needed):
        raise MissingExtraError(
            "starlette, uvicorn and prometheus-client are not all installed",
            where="lorry serve",
            todo="run: pip install 'lorry[serve]'",
        )
    from lorry_components.serving.server import listen

    # First of all: nothing is loaded for an address that cannot be taken.
    with listen(host, port) as listener:
        _serve(open_registry(), tasks, listener, grace, poll, access_log, tokens)


def _check(registry: Registry, url: str, tasks: tuple[str, ...], token: str) -> None:
    """Print what a server answers to the recorded inputs, and fail if that is not what was recorded."""
    from lorry_components.serving.recorded_answers import Server, check_server

    found = check_server(registry, Server(url, token), tasks, find_base=_open_base_finder())
    for each in found:
        named = f"{each.task} v{each.version}"
        if each.difference is not None:
            print_line(f"{named} answers as registered, within {each.difference:.1g}")
        elif each.error is None:
            print_line(f"{named} is not compared: what is recorded of its kind are no answers")
    fail_after({each.task: each.error for each in found if each.error is not None})


def _serve(
    registry: Registry,
    tasks: tuple[str, ...],
    listener: socket.socket,
    grace: int,
    poll: float,
    access_log: bool,
    tokens: Path | None,
) -> None:
    from lorry_components.process_setup import ease_garbage_collection, quiet_libraries
    from lorry_components.processors import limit_own_threads

    quiet_libraries()
    ease_garbage_collection()
    limit_own_threads()
    from lorry_components.serving.application import Service
    from lorry_components.serving.batching import Batcher
    from lorry_components.serving.catalogue import Catalogue, choose_tasks
    from lorry_components.serving.engine import compute_batch
    from lorry_components.serving.requests import Limits
    from lorry_components.serving.server import format_address, run_server
    from lorry_components.serving.shared_bases import SharedBases
    from lorry_components.serving.tokens import read_grants

    grants = None if tokens is None else read_grants(tokens)
    bases = SharedBases(_open_base_finder())
    catalogue = Catalogue(registry, bases, lambda task, found: _print_change(catalogue, task, found))
    catalogue.load(choose_tasks(registry, tasks))
    if not catalogue.versions:
        raise next(iter(catalogue.refused.values()))
    limits = Limits()
    service = Service(
        catalogue,
        Batcher(compute_batch),
        limits,
        importlib.metadata.version("lorry"),
        grants=grants,
        poll=poll,
        log=(lambda entry: print_line(json.dumps(entry))) if access_log else None,
    )
    address = format_address(*listener.getsockname()[:2])
    run_server(
        service.build_application(),
        listener=listener,
        grace=grace,
        limits=limits,
        announce=lambda: print_line(
            f"serving at http://{address}; the routes are in /openapi.json", err=True
        ),
    )


def _open_base_finder() -> "Callable[[BaseSpec], Base]":
    from lorry_components.models.bases import resolve_base

    settings = load_settings()
    digest = DigestCache(settings.digests).digest_file
    return lambda spec: resolve_base(spec.find_in(settings.base_place), digest=digest)


def _print_change(catalogue: "Catalogue", task: str, found: "ServedVersion | LorryError") -> None:
    """Print which version of a task is served from now on, or why another one is not."""
    if not isinstance(found, LorryError):
        print_line(f"{task} v{found.version} {found.adapter_id}", err=True)
    elif task in catalogue.versions:
        print_warning(f"{task} stays at v{catalogue.versions[task].version}: {found}")
    else:
        print_warning(f"{task} is not served: {found}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
