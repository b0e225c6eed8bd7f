"""Options of commands that ask Kubeflow Pipelines: where it is, and as whom it is asked."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorry_registry.cli.edge import read_environment
from lorry_registry.errors import UsageError

if TYPE_CHECKING:
    from lorry_pipelines.cluster.kubeflow_access import KubeflowAccess
    from lorry_registry.settings import Settings

# Where a pod has the token that Kubeflow Pipelines accepts, if its service account has one.
_TOKEN_PATH = Path("/var/run/secrets/kubeflow/pipelines/token")
_CRON_FIELDS = 6


_OPTIONS = (
    click.option("--host", metavar="URL", help="Kubeflow Pipelines.  [default: LORRY_KUBEFLOW_HOST]"),
    click.option("--namespace", metavar="NAME", help="Your namespace, where Kubeflow has users."),
    click.option(
        "--experiment", default="lorry", show_default=True, help="The experiment that the run is in."
    ),
    click.option("--service-account", default="", metavar="NAME", help="The account that its pods have."),
    click.option(
        "--ca-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Certificates by which the server's is checked.",
    ),
    click.option(
        "--profile",
        "profile_file",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="How steps are placed on the cluster, and prices.",
    ),
)


def add_kubeflow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command with the options that say where Kubeflow is, and how a run is placed there."""
    return functools.reduce(lambda made, option: option(made), reversed(_OPTIONS), command)


def check_cron(cron: str, *, wait: bool) -> None:
    """Refuse a schedule that Kubeflow would not take.

    Raises:
        UsageError: It would not.
    """
    if wait:
        raise UsageError("a recurring run has no end", where="--wait", todo="leave out --wait or --recurring")
    fields = cron.split()
    if len(fields) != _CRON_FIELDS or not all(re.fullmatch(r"[0-9A-Za-z*,/?-]+", field) for field in fields):
        raise UsageError(
            f"{cron!r} is not a schedule of six fields",
            where="--recurring",
            todo="write second, minute, hour, day, month and weekday, such as '0 0 3 * * *'",
        )


def find_access(
    settings: "Settings", host: str | None, namespace: str | None, ca_file: Path | None
) -> "KubeflowAccess":
    """Return where Kubeflow is, and as whom it is asked, from options, settings and the environment.

    Raises:
        UsageError: It is not known where Kubeflow is, or the address is none.
    """
    from lorry_pipelines.cluster.kubeflow_access import KubeflowAccess, check_host

    environment = read_environment()
    address = host or settings.kubeflow.host
    if not address:
        raise UsageError(
            "it is not known where Kubeflow Pipelines is",
            where="--host",
            todo="give --host, or set LORRY_KUBEFLOW_HOST or kubeflow_host in lorry.toml",
        )
    check_host(address)
    token = environment.get("LORRY_KUBEFLOW_TOKEN", "")
    cookie = environment.get("LORRY_KUBEFLOW_COOKIE", "")
    path = Path(environment.get("KF_PIPELINES_SA_TOKEN_PATH") or _TOKEN_PATH)
    return KubeflowAccess(
        host=address,
        namespace=namespace or settings.kubeflow.namespace,
        token=token,
        cookie=cookie,
        token_path=path if not token and not cookie and path.is_file() else None,
        ca_file=ca_file or (Path(settings.kubeflow.ca_file) if settings.kubeflow.ca_file else None),
    )
