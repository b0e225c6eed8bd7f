"""The command: ``python -m lorry_stack start|stop|env``."""

import os
from pathlib import Path
from typing import Any

import click

from lorry_registry.cli import LazyGroup, run_cli
from lorry_registry.errors import UsageError
from lorry_stack.compose_variables import format_compose_variables
from lorry_stack.credentials import Credentials
from lorry_stack.options import RequestedOptions
from lorry_stack.ports import LOOPBACK
from lorry_stack.private_files import write_private
from lorry_stack.stack import STORE, Stack, format_variables
from lorry_stack.stack_layout import DEFAULT_FOLDER, shorten

_PORT = click.IntRange(1, 65535)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Where the servers keep everything.",
)
@click.pass_context
def stack(ctx: click.Context, folder: Path) -> None:
    """S3, PostgreSQL and MLflow on this machine, for Lorry."""
    ctx.obj = Stack(folder, os.environ)


@stack.command()
@click.option("--artifacts", type=click.Choice(["proxied", "direct"]), help="How MLflow's artifacts travel.")
@click.option("--login", type=click.Choice(["none", "basic"]), help="Whether MLflow asks for a password.")
@click.option("--mlflow-port", type=_PORT, help="Where MLflow listens.")
@click.option("--s3-port", type=_PORT, help="Where S3 listens.")
@click.option("--postgresql-port", type=_PORT, help="Where PostgreSQL listens.")
@click.option("--allowed-hosts", help="Further names by which MLflow may be addressed, with commas.")
@click.pass_obj
def start(servers: Stack, /, **requested: Any) -> None:
    """Start the servers that do not run yet; what they kept before is there again.

    What was chosen once is kept for the next start: artifacts go through MLflow (proxied) or straight to S3
    (direct); MLflow asks no one for a password (none), or everybody (basic).
    """
    started = servers.start(RequestedOptions(**requested), lambda line: click.echo(line, err=True))
    servers.check_artifacts()
    click.echo(f"{'started' if started else 'running already'}; everything answers\n")
    options = servers.read_options()
    layout = servers.layout
    rows = {
        "S3": f"http://{LOOPBACK}:{options.s3_port}   (the store is {STORE})",
        "MLflow": f"http://{LOOPBACK}:{options.mlflow_port}"
        + (f"   (user and password are in {shorten(layout.variables)})" if options.login == "basic" else ""),
        "PostgreSQL": f"{LOOPBACK}:{options.postgresql_port}",
        "folder": f"{shorten(layout.folder)}   (data, logs, passwords)",
    }
    for name, text in rows.items():
        click.echo(f"  {name:<12}{text}")
    click.echo(f"\nIn each shell that uses them:\n  source {shorten(layout.variables)}")
    click.echo("\nThen, for example:\n  lorry doctor")
    click.echo(f"\nTo stop them (the data stay):\n  {layout.format_make('stack-stop')}")


@stack.command()
@click.pass_obj
def stop(servers: Stack) -> None:
    """Stop the servers; what they keep stays."""
    stopped = servers.stop()
    click.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing runs here")


@stack.command()
@click.pass_obj
def env(servers: Stack) -> None:
    """Print the variables for a shell, passwords included."""
    click.echo(format_variables(servers.list_variables()), nl=False)


@stack.command("compose-env")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
def write_compose_env(path: Path) -> None:
    """Write a file of new passwords for infra/stack/compose.yaml.

    A file that is there is left as it is: the servers that it was made for know no other passwords.
    """
    if path.exists():
        raise UsageError("it exists, and its passwords may be in use", where=str(path), todo="name another")
    write_private(path, format_compose_variables(Credentials()))
    click.echo(f"wrote {path}; no one else may read it")


if __name__ == "__main__":
    run_cli(stack, name="lorry_stack")
