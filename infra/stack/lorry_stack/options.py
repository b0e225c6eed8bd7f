"""The options of a stack, kept for its next start."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lorry_registry.errors import ConflictError, UsageError
from lorry_registry.files.atomic_write import write_whole_text
from lorry_stack.ports import find_free_ports, is_free

Artifacts = Literal["proxied", "direct"]
Login = Literal["none", "basic"]

_USUAL_PORTS = {"s3_port": 8333, "postgresql_port": 5433, "mlflow_port": 5000}


class StackOptions(BaseModel):
    """What a stack was started with.

    Attributes:
        artifacts: ``proxied``: MLflow hands artifacts on to S3; ``direct``: its users read and write S3.
        login: Whether MLflow asks for a user and a password: ``none`` or ``basic``.
        s3_port, postgresql_port, mlflow_port: Where the servers listen.
        allowed_hosts: Names beside ``localhost`` by which MLflow may be addressed, separated by commas.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifacts: Artifacts = "proxied"
    login: Login = "none"
    s3_port: int
    postgresql_port: int
    mlflow_port: int
    allowed_hosts: str = ""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what a stack was started with before, or None.

        Raises:
            UsageError: The file holds something else.
        """
        try:
            return cls.model_validate_json(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise UsageError(
                f"not the options of a stack: {error.errors()[0]['msg']}",
                where=str(path),
                todo="remove the file, and give the options again",
            ) from None

    def write(self, path: Path) -> None:
        """Keep the options for the next start."""
        write_whole_text(path, self.model_dump_json(indent=2) + "\n")


class RequestedOptions(BaseModel):
    """What the user asks for; None: as before, or else the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifacts: Artifacts | None = None
    login: Login | None = None
    s3_port: int | None = None
    postgresql_port: int | None = None
    mlflow_port: int | None = None
    allowed_hosts: str | None = None

    def list_differences(self, present: StackOptions) -> list[str]:
        """Return the names of what is asked for and is otherwise at present."""
        asked = self.model_dump(exclude_none=True)
        return [name for name, value in asked.items() if getattr(present, name) != value]


def choose_options(requested: RequestedOptions, before: StackOptions | None) -> StackOptions:
    """Return what a stack that does not run is started with.

    A port that is asked for must be free. One that was used before, or is usual, gives way to any other.

    Raises:
        UsageError: The way of artifacts cannot be changed any more.
        ConflictError: A server listens at a port that was asked for.
    """
    if before and requested.artifacts not in (None, before.artifacts):
        raise UsageError(
            f"this stack keeps artifacts {before.artifacts}, and its experiments remember that",
            where="--artifacts",
            todo="leave the option out, or start another stack in another folder",
        )
    kept = before.model_dump() if before else {}
    asked = requested.model_dump(exclude_none=True)
    for name, usual in _USUAL_PORTS.items():
        if name in asked:
            _require_free(name, asked[name])
        else:
            asked[name] = _choose_port(kept.get(name, usual))
    return StackOptions.model_validate(kept | asked)


def _require_free(name: str, port: int) -> None:
    if not is_free(port):
        raise ConflictError(
            f"something listens at port {port} already",
            where=f"--{name.replace('_', '-')}",
            todo="choose another port, or leave the option out: a free one is found then",
        )


def _choose_port(preferred: int) -> int:
    return preferred if is_free(preferred) else find_free_ports(1)[0]
