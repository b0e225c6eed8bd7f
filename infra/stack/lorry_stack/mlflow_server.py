"""MLflow's tracking server: its databases are PostgreSQL's, its artifacts lie on S3."""

import os
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

from lorry_registry.errors import MissingExtraError
from lorry_registry.files.atomic_write import write_whole_text
from lorry_stack import postgresql, seaweedfs
from lorry_stack.credentials import Credentials
from lorry_stack.options import StackOptions
from lorry_stack.ports import LOOPBACK
from lorry_stack.processes import ProcessRecord

NAME = "mlflow"
ADMIN = "admin"
STOP_SIGNAL = signal.SIGTERM

_WORKERS = 2
_GRACE_SECONDS = 5
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
# Everybody who can log in may read; who makes an experiment or a model may change it. A password is hashed
# anew only every half a minute, since that takes longer than all the rest of a request.
_LOGIN_SETTINGS = """\
[mlflow]
default_permission = READ
database_uri = {database}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
auth_cache_ttl_seconds = 30
"""


def start(
    folder: Path, options: StackOptions, credentials: Credentials, log: Path, inherited: dict[str, str]
) -> ProcessRecord:
    """Start the server.

    Args:
        folder: Its working folder.
        options: Ports, the way of artifacts, logins.
        credentials: The passwords.
        log: Its log.
        inherited: The variables of this process, of which a few are passed on.

    Raises:
        MissingExtraError: MLflow's server is not installed.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    log.touch(mode=0o600)
    environment = {
        **{name: inherited[name] for name in _PASSED_ON if name in inherited},
        **{"HOME": str(folder), "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull},
        "AWS_EC2_METADATA_DISABLED": "true",
        **seaweedfs.list_variables(
            options.s3_port, credentials.s3_artifacts_key, credentials.s3_artifacts_secret
        ),
        **postgresql.list_variables(credentials),
        "MLFLOW_BACKEND_STORE_URI": postgresql.build_address(options.postgresql_port, postgresql.DATABASE),
        # Jobs run code that someone sent; nothing of Lorry needs them.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **(_list_login_variables(folder, options, credentials) if options.login == "basic" else {}),
    }
    return ProcessRecord.start(_build_command(options), folder=folder, log=log, environment=environment)


def is_ready(port: int) -> bool:
    """Return whether the server answers."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _build_command(options: StackOptions) -> list[str]:
    program = Path(sys.executable).with_name("mlflow")
    if not program.exists():
        raise MissingExtraError(
            "MLflow's server is not installed", where=str(program), todo="pip install 'lorry[stack]'"
        )
    bucket = f"s3://{seaweedfs.ARTIFACTS_BUCKET}"
    artifacts = (
        ["--serve-artifacts", "--artifacts-destination", bucket]
        if options.artifacts == "proxied"
        else ["--no-serve-artifacts", "--default-artifact-root", bucket]
    )
    hosts = ["--allowed-hosts", _list_hosts(options)] if options.allowed_hosts else []
    login = ["--app-name", "basic-auth"] if options.login == "basic" else []
    place = ["--host", LOOPBACK, "--port", str(options.mlflow_port), "--workers", str(_WORKERS)]
    # A client that keeps its connection open must not keep the server from ending.
    place += ["--uvicorn-opts", f"--timeout-graceful-shutdown {_GRACE_SECONDS}"]
    return [str(program), "server", *place, *artifacts, *hosts, *login]


def _list_hosts(options: StackOptions) -> str:
    # Naming hosts replaces MLflow's own list.
    return f"localhost:*,{LOOPBACK}:*,{options.allowed_hosts}"


def _list_login_variables(folder: Path, options: StackOptions, credentials: Credentials) -> dict[str, str]:
    settings = folder / "basic_auth.ini"
    database = postgresql.build_address(options.postgresql_port, postgresql.AUTH_DATABASE)
    write_whole_text(settings, _LOGIN_SETTINGS.format(database=database))
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": credentials.mlflow_admin,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": credentials.mlflow_session,
    }
