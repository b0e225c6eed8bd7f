"""The one object that says where things are, read once at the edge and passed down.

Nothing below the command line or a component's entry reads the environment.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from lorry_registry.errors import Fault, InvalidTaskError, InvalidValueError, describe_value_error
from lorry_registry.signing.keys import PASSWORD_VARIABLE
from lorry_registry.signing.signing_settings import KEYLESS, POLICIES, Identity, SigningSettings
from lorry_registry.stores.s3_client import S3Options
from lorry_registry.tasks.base_places import BasePlace
from lorry_registry.tasks.task_document import suggest_name
from lorry_registry.text.addresses import has_secret, hide_secrets
from lorry_registry.text.sizes import parse_size
from lorry_registry.text.sqlite_addresses import find_database_file, name_database

SETTINGS_FILE = "lorry.toml"
DEFAULT_HOME = ".lorry"
"""The folder of the home by default, beside ``lorry.toml`` or in the working folder."""
DEFAULT = "default"
"""The place of a setting that nothing sets."""
DEFAULT_IMAGE = "localhost/lorry-python:latest"
DEFAULT_EXPERIMENT = "lorry"
"""The experiment in Kubeflow that runs are in, unless the settings name another."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as its user gives it.

    Attributes:
        key: Its name in ``lorry.toml``; "": it is never read from a file.
        variable: Its variable in the environment, which comes first.
        default: What holds if neither is there.
        what: What it says.
    """

    key: str
    variable: str
    default: str
    what: str


SETTINGS = (
    Setting(
        "home",
        "LORRY_HOME",
        f"`{DEFAULT_HOME}`, beside `{SETTINGS_FILE}`",
        "the folder of store, MLflow's database, caches, checkpoints and logs",
    ),
    Setting(
        "store",
        "LORRY_STORE",
        "`LORRY_HOME/store`",
        "the store of adapters and ledgers: a folder, or `s3://bucket/prefix`",
    ),
    Setting(
        "tracking_uri",
        "MLFLOW_TRACKING_URI",
        "`sqlite:///LORRY_HOME/mlflow.db`",
        "the address of your MLflow, if you have one",
    ),
    Setting(
        "checkpoints",
        "LORRY_CHECKPOINTS",
        "`LORRY_HOME/checkpoints`",
        "where an interrupted training goes on: a folder, `s3://bucket/prefix`, or `store`: in the store",
    ),
    Setting("cache_size", "LORRY_CACHE_SIZE", "`10Gi`", "how large each cache may become"),
    Setting("image", "LORRY_IMAGE", f"`{DEFAULT_IMAGE}`", "the image of steps in containers"),
    Setting("slim_image", "LORRY_SLIM_IMAGE", "`LORRY_IMAGE`", "a smaller one, for steps that load no model"),
    Setting(
        "bases",
        "LORRY_BASES",
        "none",
        "where bases called `bases:NAME` are: a folder, or `s3://bucket/prefix`",
    ),
    Setting(
        "s3_encryption", "LORRY_S3_ENCRYPTION", "the bucket's", "encryption at rest: `AES256` or `aws:kms`"
    ),
    Setting("s3_kms_key", "LORRY_S3_KMS_KEY", "the account's", "the key for `aws:kms`"),
    Setting(
        "signing_policy",
        "LORRY_SIGNING_POLICY",
        "`none`",
        "`none` looks at no signature; `warn` warns of what `require` refuses",
    ),
    Setting(
        "signing_key",
        "LORRY_SIGNING_KEY",
        "none",
        "what this process signs with: the file of a private key, or `sigstore`",
    ),
    Setting("", PASSWORD_VARIABLE, "none", "what the private key is encrypted with"),
    Setting("trusted_keys", "LORRY_TRUSTED_KEYS", "none", "files of public keys, joined by `:`"),
    Setting(
        "trusted_identities",
        "LORRY_TRUSTED_IDENTITIES",
        "none",
        "`NAME|ISSUER`, joined by spaces, for signing without a key",
    ),
    Setting(
        "sigstore_trust",
        "LORRY_SIGSTORE_TRUST",
        "the public one",
        "the trust configuration of a sigstore of your own",
    ),
    Setting(
        "kubeflow_host",
        "LORRY_KUBEFLOW_HOST",
        "none",
        "the address of Kubeflow Pipelines, which tasks are submitted to",
    ),
    Setting(
        "kubeflow_namespace",
        "LORRY_KUBEFLOW_NAMESPACE",
        "none",
        "the namespace of runs, where Kubeflow has users",
    ),
    Setting(
        "kubeflow_ca_file",
        "LORRY_KUBEFLOW_CA_FILE",
        "those of public authorities",
        "the certificates that Kubeflow's own is checked by",
    ),
    Setting(
        "kubeflow_profile",
        "LORRY_KUBEFLOW_PROFILE",
        "none",
        "the file that says how steps are placed",
    ),
    Setting(
        "kubeflow_experiment",
        "LORRY_KUBEFLOW_EXPERIMENT",
        f"`{DEFAULT_EXPERIMENT}`",
        "the experiment that runs are in",
    ),
    Setting(
        "kubeflow_service_account",
        "LORRY_KUBEFLOW_SERVICE_ACCOUNT",
        "Kubeflow's",
        "the account of the pods",
    ),
)
"""All settings, in the order in which the reference lists them."""
_VARIABLES = {setting.key: setting.variable for setting in SETTINGS if setting.key}
IN_STORE = "store"
"""The setting of checkpoints that puts them into the store, below ``checkpoints/``."""

DEFAULT_CACHE_BYTES = 10 << 30
"""How large a cache of adapters may become."""

_BASES_ON_S3 = re.compile(r"s3://[^/]+/[^/].*")
_CHOICES = {"s3_encryption": ("AES256", "aws:kms"), "signing_policy": POLICIES}


class KubeflowOptions(BaseModel):
    """Where runs are submitted to.

    Attributes:
        host: The address of Kubeflow Pipelines; empty: none is set.
        namespace: The namespace of runs; empty where Kubeflow has no users.
        ca_file: The certificates that its own is checked by; None: those of public authorities.
        profile: The file that says how steps are placed; None: the defaults.
        experiment: The experiment that runs are in.
        service_account: The account of the pods; empty: Kubeflow's default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = ""
    namespace: str = ""
    ca_file: Path | None = None
    profile: Path | None = None
    experiment: str = DEFAULT_EXPERIMENT
    service_account: str = ""


class Settings(BaseModel):
    """Where Lorry keeps things.

    Attributes:
        home: The folder of caches, checkpoints and logs, and by default of store and MLflow database.
        store: The address of the store of adapters and ledgers: a local folder, or ``s3://bucket/prefix``.
        tracking_uri: MLflow's tracking server or database.
        image: The container image that pipeline steps run in.
        slim_image: The image of those steps that load no model; "": they run in ``image`` as well.
        s3: Options of a store on S3 beyond boto3's own settings.
        signing: Which signatures are demanded, and what is signed with.
        given_checkpoints: Where to keep checkpoints: a folder, ``store`` or ``s3://bucket/prefix``; "": as
            a folder of ``home``.
        bases: Where base models with a logical name are: a folder, or ``s3://bucket/prefix``; "": none are.
        cache_bytes: How large the cache of adapters may become, in bytes.
        kubeflow: Where runs are submitted to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    store: str
    tracking_uri: str
    image: str
    slim_image: str = ""
    s3: S3Options = S3Options()
    signing: SigningSettings = SigningSettings()
    given_checkpoints: str = ""
    bases: str = ""
    cache_bytes: int = DEFAULT_CACHE_BYTES
    kubeflow: KubeflowOptions = KubeflowOptions()

    @classmethod
    def load(cls, environment: Mapping[str, str], folder: Path) -> Self:
        """Read the settings: the environment first, then ``lorry.toml``, then the defaults.

        ``lorry.toml`` is the nearest one at or above the folder. Its paths, and the default home, count from
        its own folder; those in the environment count from ``folder``.

        Raises:
            InvalidTaskError: ``lorry.toml`` is not TOML, belongs to another user, or holds a key that is not
                a setting, or a setting has a value that is not one of its choices.
        """
        path = find_settings_file(folder)
        file_values = _read_settings_file(path, folder)
        base = path.parent if path is not None else folder.absolute()
        chosen = {
            field: environment.get(variable) or file_values.get(field)
            for field, variable in _VARIABLES.items()
        }
        where = str(path or folder / SETTINGS_FILE)
        _check_choices(chosen, environment, where)

        def anchor(field: str) -> Path:
            return folder if environment.get(_VARIABLES[field]) else base

        def locate(field: str) -> Path | None:
            value = chosen[field]
            return _anchor_path(value, anchor(field)) if value else None

        places = ", ".join(
            [*(_VARIABLES[field] for field in ("home", "store") if environment.get(_VARIABLES[field]))]
        )
        try:
            home = _anchor_path(chosen["home"] or DEFAULT_HOME, anchor("home"))
            store = chosen["store"]
            return cls(
                home=home,
                store=_anchor_store(store, anchor("store")) if store else str(home / "store"),
                tracking_uri=_anchor_database(
                    chosen["tracking_uri"] or name_database(home / "mlflow.db"), anchor("tracking_uri")
                ),
                image=chosen["image"] or DEFAULT_IMAGE,
                slim_image=chosen["slim_image"] or "",
                s3=S3Options(
                    encryption=chosen["s3_encryption"] or "",
                    kms_key=chosen["s3_kms_key"] or "",
                ),
                signing=_read_signing(chosen, environment.get(PASSWORD_VARIABLE, ""), anchor),
                given_checkpoints=_anchor_checkpoints(chosen["checkpoints"] or "", anchor("checkpoints")),
                bases=_anchor_store(chosen["bases"], anchor("bases")) if chosen["bases"] else "",
                cache_bytes=parse_size(chosen["cache_size"]) if chosen["cache_size"] else DEFAULT_CACHE_BYTES,
                kubeflow=KubeflowOptions(
                    host=chosen["kubeflow_host"] or "",
                    namespace=chosen["kubeflow_namespace"] or "",
                    ca_file=locate("kubeflow_ca_file"),
                    profile=locate("kubeflow_profile"),
                    experiment=chosen["kubeflow_experiment"] or DEFAULT_EXPERIMENT,
                    service_account=chosen["kubeflow_service_account"] or "",
                ),
            )
        except RuntimeError as error:
            # The home of a user that does not exist.
            fault = Fault("path", f"a path cannot be found: {error}")
            raise InvalidTaskError(places or where, [fault], todo="correct the settings") from error

    def list_s3_variables(self) -> dict[str, str]:
        """Return the variables that give other processes the S3 settings that are not the default."""
        values = {"s3_encryption": self.s3.encryption, "s3_kms_key": self.s3.kms_key}
        return {_VARIABLES[field]: value for field, value in values.items() if value}

    def list_signing_variables(self) -> dict[str, str]:
        """Return the variables that give other processes what is signed with and trusted; no password."""
        signing = self.signing
        values = {
            "signing_policy": signing.policy if signing.is_checking else "",
            "signing_key": signing.key,
            "trusted_keys": os.pathsep.join(map(str, signing.trusted_keys)),
            "trusted_identities": " ".join(map(str, signing.trusted_identities)),
            "sigstore_trust": str(signing.sigstore_trust or ""),
        }
        return {_VARIABLES[field]: value for field, value in values.items() if value}

    @property
    def seen_heads(self) -> Path:
        """Where this machine keeps what it has seen of each task's ledger."""
        return self.home / "seen-heads"

    def list_step_variables(self) -> dict[str, str]:
        """Return the variables that give steps in other processes the settings that are not the default."""
        size = {} if self.cache_bytes == DEFAULT_CACHE_BYTES else {"LORRY_CACHE_SIZE": str(self.cache_bytes)}
        bases = {_VARIABLES["bases"]: self.bases} if self.bases else {}
        return {**self.list_s3_variables(), **self.list_signing_variables(), **size, **bases}

    @property
    def features(self) -> Path:
        """Where features of frozen bases are kept."""
        return self.cache / "features"

    @property
    def cache(self) -> Path:
        """Where pulled adapters and digests of files are kept."""
        return self.home / "cache"

    @property
    def digests(self) -> Path:
        """Where digests of bases and data files are kept, so that an unchanged file is hashed once."""
        return self.cache / "digests"

    @property
    def passed_checks(self) -> Path:
        """Where it is kept which tasks were found to work on their bases."""
        return self.cache / "passed-checks"

    @property
    def adapters(self) -> Path:
        """Where verified copies of adapters are kept, by their ids."""
        return self.cache / "adapters"

    @property
    def base_place(self) -> BasePlace:
        """Where base models with a logical name are found."""
        return BasePlace(address=self.bases, cache=self.cache / "bases", s3=self.s3)

    @property
    def checkpoints(self) -> Path:
        """Where an interrupted training finds its last checkpoint, unless that is in a store."""
        if self.given_checkpoints and not self.has_remote_checkpoints:
            return Path(self.given_checkpoints)
        return self.home / "checkpoints"

    @property
    def checkpoint_address(self) -> str:
        """The place where steps keep checkpoints: a folder, ``store``, or ``s3://bucket/prefix``."""
        return self.given_checkpoints if self.has_remote_checkpoints else str(self.checkpoints)

    @property
    def has_remote_checkpoints(self) -> bool:
        """Whether checkpoints are kept in a store, where a step on another machine finds them."""
        return self.given_checkpoints == IN_STORE or "://" in self.given_checkpoints

    @property
    def runs(self) -> Path:
        """Where each run keeps its log and working files."""
        return self.home / "runs"

    @property
    def locks(self) -> Path:
        """Where a running task holds its lock."""
        return self.home / "locks"


@dataclass(frozen=True, slots=True)
class SettingOrigin:
    """A setting, and where it comes from.

    Attributes:
        name: Its name in ``lorry.toml``.
        variable: Its environment variable.
        value: What counts, as it was read; it may hold a secret.
        place: The variable, ``lorry.toml``, or ``default``.
    """

    name: str
    variable: str
    value: str
    place: str


def find_settings_file(folder: Path) -> Path | None:
    """Return the nearest ``lorry.toml`` at or above a folder, as ``pyproject.toml`` is found; None: none."""
    start = folder.absolute()
    candidates = (place / SETTINGS_FILE for place in (start, *start.parents))
    return next((path for path in candidates if path.is_file()), None)


def find_home_above(environment: Mapping[str, str], folder: Path) -> Path | None:
    """Return the home of a registry above a folder that no command in the folder uses; None: there is none.

    It is not used where the folder has a home of its own, or where the settings say where the home is.
    """
    start = folder.absolute()
    is_chosen = any(environment.get(_VARIABLES[field]) for field in ("home", "store"))
    if is_chosen or find_settings_file(start) is not None or (start / DEFAULT_HOME).is_dir():
        return None
    candidates = (place / DEFAULT_HOME for place in start.parents)
    return next((home for home in candidates if (home / "store").is_dir()), None)


def list_origins(settings: Settings, environment: Mapping[str, str], folder: Path) -> list[SettingOrigin]:
    """Return each setting with the place that :meth:`Settings.load` took it from.

    Raises:
        InvalidTaskError: ``lorry.toml`` has faults.
    """
    file_values = _read_settings_file(find_settings_file(folder), folder)
    origins = []
    for name, variable in _VARIABLES.items():
        place = variable if environment.get(variable) else SETTINGS_FILE if file_values.get(name) else DEFAULT
        value = environment.get(variable) or file_values.get(name) or str(getattr(settings, name, ""))
        origins.append(SettingOrigin(name, variable, value, place))
    return origins


def _anchor_database(address: str, folder: Path) -> str:
    """Return the address of MLflow with an absolute path: steps may have another working folder."""
    database = find_database_file(address)
    if database is None:
        return address
    _, mark, query = address.partition("?")
    return f"{name_database((folder / database).absolute())}{mark}{query}"


def _anchor_store(address: str, folder: Path) -> str:
    return address if "://" in address else str((folder / Path(address).expanduser()).absolute())


def _read_signing(
    chosen: Mapping[str, str | None], password: str, anchor: Callable[[str], Path]
) -> SigningSettings:
    key, trust = chosen["signing_key"] or "", chosen["sigstore_trust"]
    return SigningSettings.model_validate(
        {
            "policy": chosen["signing_policy"] or "none",
            "key": key if key in ("", KEYLESS) else str(_anchor_path(key, anchor("signing_key"))),
            "password": password,
            "trusted_keys": [
                _anchor_path(path, anchor("trusted_keys")) for path in _split_paths(chosen["trusted_keys"])
            ],
            "trusted_identities": [
                Identity.parse(text) for text in (chosen["trusted_identities"] or "").split()
            ],
            "sigstore_trust": _anchor_path(trust, anchor("sigstore_trust")) if trust else None,
        }
    )


def _split_paths(paths: str | None) -> list[str]:
    return [path for path in (paths or "").split(os.pathsep) if path]


def _anchor_path(path: str, folder: Path) -> Path:
    return (folder / Path(path).expanduser()).absolute()


def _check_signing(chosen: Mapping[str, str | None]) -> Iterator[Fault]:
    for text in (chosen["trusted_identities"] or "").split():
        try:
            Identity.parse(text)
        except InvalidValueError as error:
            yield describe_value_error(error, "trusted_identities")
    policy = chosen["signing_policy"] or "none"
    if policy != "none" and not (chosen["trusted_keys"] or chosen["trusted_identities"]):
        yield Fault(
            "signing_policy",
            f"{policy!r} needs a trusted key or identity",
            f"set {_VARIABLES['trusted_keys']} or {_VARIABLES['trusted_identities']}",
        )


def _anchor_checkpoints(given: str, folder: Path) -> str:
    return given if given in ("", IN_STORE) else _anchor_store(given, folder)


def _check_values(chosen: Mapping[str, str | None]) -> Iterator[Fault]:
    checkpoints = chosen["checkpoints"] or ""
    if has_secret(checkpoints):
        yield Fault("checkpoints", "the address holds credentials", "leave them out: boto3 finds them")
    elif "://" in checkpoints and not checkpoints.startswith("s3://"):
        yield Fault(
            "checkpoints",
            f"{hide_secrets(checkpoints)!r} is no place for checkpoints",
            f"write a folder, s3://bucket/prefix, or {IN_STORE!r} for a place in the store itself",
        )
    yield from _check_bases(chosen["bases"] or "")
    if chosen["cache_size"]:
        try:
            parse_size(chosen["cache_size"])
        except ValueError:
            yield Fault("cache_size", f"{chosen['cache_size']!r} is not a size", "write, for example, 20Gi")


def _check_bases(bases: str) -> Iterator[Fault]:
    if has_secret(bases):
        yield Fault("bases", "the address holds credentials", "leave them out: boto3 finds them")
    elif "://" in bases and not _BASES_ON_S3.fullmatch(bases):
        yield Fault(
            "bases", f"{hide_secrets(bases)!r} is no place for bases", "write a folder, or s3://bucket/prefix"
        )


def _check_choices(chosen: Mapping[str, str | None], environment: Mapping[str, str], where: str) -> None:
    faults = [
        Fault(field, f"{chosen[field]!r} is not a choice", f"write {' or '.join(choices)}")
        for field, choices in _CHOICES.items()
        if chosen[field] and chosen[field] not in choices
    ]
    if chosen["s3_kms_key"] and chosen["s3_encryption"] != "aws:kms":
        faults.append(Fault("s3_kms_key", "is used with s3_encryption aws:kms only", "set that as well"))
    faults += _check_signing(chosen)
    faults += _check_values(chosen)
    if faults:
        variables = [_VARIABLES[fault.where] for fault in faults if environment.get(_VARIABLES[fault.where])]
        raise InvalidTaskError(", ".join(variables) or where, faults, todo="correct the settings")


def _read_settings_file(path: Path | None, folder: Path) -> dict[str, str]:
    if path is None:
        return {}
    _refuse_foreign_file(path, folder)
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidTaskError(str(path), [Fault("file", f"not TOML: {error}")]) from error
    faults = [
        Fault(key, "unknown setting", suggest_name(key, _VARIABLES))
        if key not in _VARIABLES
        else Fault(key, "must be a string")
        for key, value in values.items()
        if key not in _VARIABLES or not isinstance(value, str)
    ]
    if faults:
        raise InvalidTaskError(str(path), faults, todo="correct the settings file")
    return values


def _refuse_foreign_file(path: Path, folder: Path) -> None:
    """Refuse a file above the working folder that another user put there, such as one in /tmp.

    It says where adapters come from and which signatures are demanded.
    """
    trusted = {0, os.geteuid(), folder.stat().st_uid}
    if path.parent != folder.absolute() and path.stat().st_uid not in trusted:
        fault = Fault("file", "it is above the working folder and belongs to another user")
        raise InvalidTaskError(str(path), [fault], todo="remove it, or write a lorry.toml of your own here")
