"""The one object that says where things are, read once at the edge and passed down.

Nothing below the command line or a component's entry reads the environment.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from lorry_registry.errors import Fault, InvalidTaskError
from lorry_registry.stores.s3_client import S3Options

SETTINGS_FILE = "lorry.toml"
DEFAULT_IMAGE = "localhost/lorry-python:latest"

_VARIABLES = {
    "home": "LORRY_HOME",
    "store": "LORRY_STORE",
    "tracking_uri": "MLFLOW_TRACKING_URI",
    "image": "LORRY_IMAGE",
    "s3_encryption": "LORRY_S3_ENCRYPTION",
    "s3_kms_key": "LORRY_S3_KMS_KEY",
}
_CHOICES = {"s3_encryption": ("AES256", "aws:kms")}


class Settings(BaseModel):
    """Where Lorry keeps things.

    Attributes:
        home: The folder of caches, checkpoints and logs, and by default of store and MLflow database.
        store: The address of the store of adapters and ledgers: a local folder, or ``s3://bucket/prefix``.
        tracking_uri: MLflow's tracking server or database.
        image: The container image that pipeline steps run in.
        s3: What a store on S3 is told beyond boto3's own settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    store: str
    tracking_uri: str
    image: str
    s3: S3Options = S3Options()

    @classmethod
    def load(cls, environment: Mapping[str, str], folder: Path) -> Self:
        """Read the settings: the environment first, then ``lorry.toml`` in a folder, then the defaults.

        Raises:
            InvalidTaskError: ``lorry.toml`` is not TOML or holds a key that is not a setting, or a setting
                has a value that is not one of its choices.
        """
        file_values = _read_settings_file(folder / SETTINGS_FILE)
        chosen = {
            field: environment.get(variable) or file_values.get(field)
            for field, variable in _VARIABLES.items()
        }
        _check_choices(chosen, environment, folder / SETTINGS_FILE)
        places = ", ".join(
            [*(_VARIABLES[field] for field in ("home", "store") if environment.get(_VARIABLES[field]))]
        ) or str(folder / SETTINGS_FILE)
        try:
            home = (folder / Path(chosen["home"] or ".lorry").expanduser()).absolute()
            store = _anchor_store(chosen["store"], folder) if chosen["store"] else str(home / "store")
        except RuntimeError as error:
            # The home of a user that does not exist.
            fault = Fault("path", f"a path cannot be found: {error}")
            raise InvalidTaskError(places, [fault], todo="correct the settings") from error
        return cls(
            home=home,
            store=store,
            tracking_uri=chosen["tracking_uri"] or f"sqlite:///{home / 'mlflow.db'}",
            image=chosen["image"] or DEFAULT_IMAGE,
            s3=S3Options(
                encryption=chosen["s3_encryption"] or "",
                kms_key=chosen["s3_kms_key"] or "",
            ),
        )

    def list_s3_variables(self) -> dict[str, str]:
        """Return the variables that give other processes the S3 settings that are not the default."""
        values = {"s3_encryption": self.s3.encryption, "s3_kms_key": self.s3.kms_key}
        return {_VARIABLES[field]: value for field, value in values.items() if value}

    @property
    def cache(self) -> Path:
        """Where pulled adapters and digests of files are kept."""
        return self.home / "cache"

    @property
    def digests(self) -> Path:
        """Where digests of bases and data files are kept, so that an unchanged file is hashed once."""
        return self.cache / "digests"

    @property
    def checkpoints(self) -> Path:
        """Where an interrupted training finds its last checkpoint."""
        return self.home / "checkpoints"

    @property
    def runs(self) -> Path:
        """Where each run keeps its log and working files."""
        return self.home / "runs"

    @property
    def locks(self) -> Path:
        """Where a running task holds its lock."""
        return self.home / "locks"


def _anchor_store(address: str, folder: Path) -> str:
    return address if "://" in address else str((folder / Path(address).expanduser()).absolute())


def _check_choices(chosen: Mapping[str, str | None], environment: Mapping[str, str], path: Path) -> None:
    faults = [
        Fault(field, f"{chosen[field]!r} is not a choice", f"write {' or '.join(choices)}")
        for field, choices in _CHOICES.items()
        if chosen[field] and chosen[field] not in choices
    ]
    if chosen["s3_kms_key"] and chosen["s3_encryption"] != "aws:kms":
        faults.append(Fault("s3_kms_key", "is used with s3_encryption aws:kms only", "set that as well"))
    if faults:
        variables = [_VARIABLES[fault.where] for fault in faults if environment.get(_VARIABLES[fault.where])]
        raise InvalidTaskError(", ".join(variables) or str(path), faults, todo="correct the settings")


def _read_settings_file(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidTaskError(str(path), [Fault("file", f"not TOML: {error}")]) from error
    faults = [
        Fault(key, "unknown setting", f"known are {', '.join(_VARIABLES)}")
        if key not in _VARIABLES
        else Fault(key, "must be a string")
        for key, value in values.items()
        if key not in _VARIABLES or not isinstance(value, str)
    ]
    if faults:
        raise InvalidTaskError(str(path), faults, todo="correct the settings file")
    return values
