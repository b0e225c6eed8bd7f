"""The passwords of a stack: random, made once, and kept in a file that its owner alone may read."""

import secrets
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorry_registry.errors import UsageError
from lorry_stack.private_files import write_private

_BYTES = 24


def _make_secret() -> str:
    return secrets.token_hex(_BYTES)


def _make_key() -> str:
    return secrets.token_hex(10).upper()


class Credentials(BaseModel):
    """What the servers of one stack, and their users, prove themselves with.

    Attributes:
        s3_admin_key, s3_admin_secret: May do everything on S3; used to create the buckets.
        s3_key, s3_secret: Lorry's and its users', for the store's bucket.
        s3_artifacts_key, s3_artifacts_secret: MLflow's, for the bucket of artifacts.
        postgresql_admin: The password of the database server's administrator.
        postgresql: The password of MLflow's user, who owns its databases.
        mlflow_admin: The password of MLflow's administrator, where users log in.
        mlflow_session: What MLflow signs its pages' sessions with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    s3_admin_key: str = Field(default_factory=_make_key)
    s3_admin_secret: str = Field(default_factory=_make_secret)
    s3_key: str = Field(default_factory=_make_key)
    s3_secret: str = Field(default_factory=_make_secret)
    s3_artifacts_key: str = Field(default_factory=_make_key)
    s3_artifacts_secret: str = Field(default_factory=_make_secret)
    postgresql_admin: str = Field(default_factory=_make_secret)
    postgresql: str = Field(default_factory=_make_secret)
    mlflow_admin: str = Field(default_factory=_make_secret)
    mlflow_session: str = Field(default_factory=_make_secret)

    @classmethod
    def read_or_make(cls, path: Path) -> Self:
        """Return the credentials in a file; the first call makes them.

        Raises:
            UsageError: The file does not hold credentials.
        """
        if not path.exists():
            made = cls()
            write_private(path, made.model_dump_json(indent=2) + "\n")
            return made
        try:
            found = cls.model_validate_json(path.read_text("utf-8"))
        except ValidationError as error:
            raise UsageError(
                # The message of pydantic would quote the file.
                f"not the credentials of a stack: {error.error_count()} faults",
                where=str(path),
                todo="restore it from a backup: the servers know no other passwords",
            ) from None
        path.chmod(0o600)
        return found
