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
        "--experiment",
        metavar="NAME",
        help="The experiment that the run is in.  [default: LORRY_KUBEFLOW_EXPERIMENT, or lorry]",
    ),
    click.option("--service-account", metavar="NAME", help="The account that its pods have."),
    click.option(
        "--ca-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Certificates by which the server's is checked.",
    ),
    click.option(
        "--profile",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="How steps are placed on the cluster, and prices.  [default: LORRY_KUBEFLOW_PROFILE]",
    ),
)


def add_kubeflow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command with the options that say where Kubeflow is, and how a run is placed there.

    They are called as what :func:`override_kubeflow` takes, so that a command hands them on together.
    """
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


def override_kubeflow(settings: "Settings", **given: Any) -> "Settings":
    """Return settings in which the options of the command line count for more than what was set.

    Args:
        settings: The settings.
        given: Fields of ``settings.kubeflow``; None: the option was not given.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update={"kubeflow": settings.kubeflow.model_copy(update=chosen)})


def find_access(settings: "Settings") -> "KubeflowAccess":
    """Return where Kubeflow is, and as whom it is asked, from settings and the environment.

    Raises:
        UsageError: It is not known where Kubeflow is, or the address is none.
    """
    from lorry_pipelines.cluster.kubeflow_access import KubeflowAccess, check_host

    environment = read_environment()
    kubeflow = settings.kubeflow
    if not kubeflow.host:
        raise UsageError(
            "it is not known where Kubeflow Pipelines is",
            where="--host",
            todo="give --host, or set LORRY_KUBEFLOW_HOST or kubeflow_host in lorry.toml",
        )
    check_host(kubeflow.host)
    token = environment.get("LORRY_KUBEFLOW_TOKEN", "")
    cookie = environment.get("LORRY_KUBEFLOW_COOKIE", "")
    path = Path(environment.get("KF_PIPELINES_SA_TOKEN_PATH") or _TOKEN_PATH)
    return KubeflowAccess(
        host=kubeflow.host,
        namespace=kubeflow.namespace,
        token=token,
        cookie=cookie,
        token_path=path if not token and not cookie and path.is_file() else None,
        ca_file=kubeflow.ca_file,
    )
