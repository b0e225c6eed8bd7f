"""The keys and identities that a registry's user trusts, and signs with.

It comes from the settings of the reader or writer, never from the store: a policy that lay there could be
switched off by anybody who can write there, which is who it protects from.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, SecretStr

from lorry_registry.errors import InvalidValueError, UsageError

Policy = Literal["none", "warn", "require"]
POLICIES: tuple[Policy, ...] = ("none", "warn", "require")
# In place of the path of a private key.
KEYLESS = "sigstore"


class Identity(BaseModel):
    """Who signs without a key: an account, as its issuer vouches for it.

    Attributes:
        name: The account, such as an e-mail address or the address of a workflow.
        issuer: The address of the OpenID Connect issuer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    issuer: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``NAME|ISSUER``.

        Raises:
            InvalidValueError: It has another form.
        """
        name, bar, issuer = text.partition("|")
        if not (name and bar and issuer.startswith("https://")):
            raise InvalidValueError(
                f"{text!r} is not an identity",
                "write NAME|ISSUER, such as ci@example.org|https://accounts.google.com",
            )
        return cls(name=name, issuer=issuer)

    def __str__(self) -> str:
        return f"{self.name}|{self.issuer}"


class SigningSettings(BaseModel):
    """Which signatures are demanded, by whom, and what this process signs with.

    Attributes:
        policy: ``none`` looks at no signature, ``warn`` warns of what ``require`` refuses.
        trusted_keys: Files of the public keys whose signatures count.
        trusted_identities: The identities whose signatures count.
        key: The file of the private key that adapters and events are signed with, or ``sigstore`` to sign as
            an identity; "": nothing is signed.
        password: What the private key is encrypted with. Never shown.
        sigstore_trust: A file with the certificates and logs of one's own sigstore; None: the public one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Policy = "none"
    trusted_keys: tuple[Path, ...] = ()
    trusted_identities: tuple[Identity, ...] = ()
    key: str = ""
    password: SecretStr = SecretStr("")
    sigstore_trust: Path | None = None

    @property
    def is_checking(self) -> bool:
        """Whether signatures are looked at."""
        return self.policy != "none"

    @property
    def is_required(self) -> bool:
        """Whether what has no trusted signature is refused."""
        return self.policy == "require"

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are named here, which a step in a container has to see."""
        named = [*self.trusted_keys, self.sigstore_trust]
        named += [Path(self.key)] if self.key and self.key != KEYLESS else []
        return tuple(path for path in named if path is not None)

    def check_ready(self) -> None:
        """Raise unless what this process writes will be accepted by readers with the same settings.

        Raises:
            MissingExtraError: What signs is not installed.
            UsageError: Signatures are required and there is no key, or the key cannot be read or is not
                trusted.
        """
        from lorry_registry.signing.keys import identify_key, read_private_key, read_public_key

        if self.is_required and not self.key:
            raise UsageError(
                "signatures are required here, and there is no key to sign with: anything written would "
                "be refused",
                where="LORRY_SIGNING_POLICY",
                todo="set LORRY_SIGNING_KEY to the file of a private key, or to sigstore",
            )
        if self.key in ("", KEYLESS):
            return
        trusted = {read_public_key(path).id for path in self.trusted_keys}
        own = identify_key(read_private_key(Path(self.key), self.password.get_secret_value()).public_key())
        if self.is_required and own not in trusted:
            raise UsageError(
                "this key is not among the trusted ones: anything it signs would be refused",
                where=self.key,
                todo="add its public key to LORRY_TRUSTED_KEYS, or sign with a trusted one",
            )
