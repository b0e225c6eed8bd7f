"""The policy at work: signs what is written, and judges what is read by the settings of its reader."""

from collections.abc import Iterable
from pathlib import Path

from lorry_registry.errors import AdapterRejectedError, LorryError, StoreError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.manifest import Manifest
from lorry_registry.signing import adapter_signatures, keyless
from lorry_registry.signing.attestations import KEYLESS_PREFIX, Signatures, StoredSignatures
from lorry_registry.signing.event_signatures import EventSignature, is_signed_by_key, sign_with_key
from lorry_registry.signing.keys import PublicKey, identify_key, read_private_key, read_public_key
from lorry_registry.signing.rollback_guard import SeenHead, SeenHeads, check_not_older
from lorry_registry.signing.signing_settings import KEYLESS, SigningSettings


class Trust:
    """Signs and checks, as the settings say.

    Args:
        settings: Which signatures are demanded, by whom, and what is signed with.
        seen: Where the newest event seen of each task is kept; None: nowhere.
    """

    def __init__(self, settings: SigningSettings | None = None, seen: Path | None = None) -> None:
        self.settings = settings or SigningSettings()
        self._seen = None if seen is None else SeenHeads(seen)
        self._keys: tuple[PublicKey, ...] | None = None
        self._warned: set[str] = set()
        self._is_ready = False

    @property
    def is_signing(self) -> bool:
        """Whether what is written is signed."""
        return bool(self.settings.key)

    @property
    def is_checking(self) -> bool:
        """Whether signatures are looked at."""
        return self.settings.is_checking

    def suspend_checks(self) -> "Trust":
        """Return one that signs in the same way and judges nothing, for what is about to be signed."""
        return Trust(self.settings.model_copy(update={"policy": "none"}))

    # Signing

    def check_ready(self) -> None:
        """Raise unless what is written here will be accepted by readers with the same settings.

        Raises:
            LorryError: There is no key although signatures are required, or it cannot be used.
        """
        if not self._is_ready:
            self.settings.check_ready()
            self._is_ready = True

    def sign_event(self, content: bytes) -> EventSignature:
        """Sign the bytes of an event.

        Raises:
            LorryError: The key cannot be used, or sigstore cannot be reached.
        """
        if self.settings.key == KEYLESS:
            trust = self.settings.sigstore_trust
            return EventSignature(bundle=keyless.sign_as_identity(content, keyless.find_token(trust), trust))
        return sign_with_key(content, read_private_key(Path(self.settings.key), self._password))

    def sign_adapter(self, manifest: Manifest, signatures: StoredSignatures) -> bool:
        """Sign an adapter, unless this key or identity has; return whether it was signed now.

        Args:
            manifest: The adapter's manifest, whose files were hashed.
            signatures: Where the signature goes.

        Raises:
            LorryError: The key cannot be used, or sigstore or the store cannot be reached.
        """
        if self.settings.key == KEYLESS:
            if self.settings.trusted_identities and self._find_identity(manifest, signatures, []):
                return False
            trust = self.settings.sigstore_trust
            bundle = adapter_signatures.sign_as_identity(manifest, keyless.find_token(trust), trust)
            name = f"{KEYLESS_PREFIX}{digest_bytes(bundle)[7:39]}"
            # It is named by its content: what has its name is either the same or forged.
            return signatures.write(name, bundle, is_good=lambda former: former == bundle)
        path = Path(self.settings.key)
        key = read_private_key(path, self._password).public_key()
        name = identify_key(key)

        def is_good(bundle: bytes) -> bool:
            return adapter_signatures.is_signed_by(manifest, bundle, key)

        former = signatures.read(name)
        if former is not None and is_good(former):
            return False
        bundle = adapter_signatures.sign_with_key(manifest, path, self._password)
        return signatures.write(name, bundle, is_good=is_good)

    # Checking

    def check_adapter(self, manifest: Manifest, signatures: Iterable[Signatures], *, where: str) -> None:
        """Judge an adapter by its signatures.

        Args:
            manifest: Its manifest, by which its files were or will be hashed.
            signatures: Where signatures may be, in the order in which they are looked at.
            where: What an error names.

        Raises:
            AdapterRejectedError: Signatures are required, and none is by a trusted key or identity.
        """
        if not self.is_checking:
            return
        problems: list[str] = []
        places: list[Signatures] = []
        # Each is opened when the one before it did not do: the last may be on the network.
        for place in signatures:
            places.append(place)
            if self._find_key(manifest, place, problems) or self._find_identity(manifest, place, problems):
                return
        others = sorted({name[:12] for place in places for name in place.list_names()})
        what = "; ".join(problems) or (
            f"it is signed, but by no key trusted here: {', '.join(others)}" if others else "it is not signed"
        )
        self.object_to(
            AdapterRejectedError(
                what,
                where=where,
                todo="if you know where it comes from, sign it: lorry sign "
                f"{manifest.task}; or trust who signed it: LORRY_TRUSTED_KEYS, LORRY_TRUSTED_IDENTITIES",
            ),
            subject=f"adapter {manifest.adapter_id}",
        )

    def check_event(self, content: bytes, signature: EventSignature | None, *, task: str, where: str) -> None:
        """Judge an event by its signature.

        Raises:
            StoreError: Signatures are required, and this is none by a trusted key or identity.
        """
        if self.is_checking and not self.is_trusted_event(content, signature):
            self.object_to_ledger(
                "the newest event is not signed"
                if signature is None
                else "the signature of an event is wrong, or not by a trusted key or identity",
                task=task,
                where=where,
            )

    def is_trusted_event(self, content: bytes, signature: EventSignature | None) -> bool:
        """Return whether a trusted key signed an event's bytes."""
        if signature is None:
            return False
        if signature.bundle is None:
            return is_signed_by_key(content, signature, self._read_keys())
        trust = self.settings.sigstore_trust
        return any(
            keyless.is_signed_by_identity(content, signature.bundle, identity, trust)
            for identity in self.settings.trusted_identities
        )

    def vouches_for(self, content: bytes, signature: EventSignature | None) -> bool:
        """Return whether a trusted key signed an event's bytes, or this process's own key did."""
        if signature is None or self.is_trusted_event(content, signature):
            return signature is not None
        if self.settings.key in ("", KEYLESS):
            return False
        path = Path(self.settings.key)
        own = read_private_key(path, self._password).public_key()
        return is_signed_by_key(content, signature, [PublicKey(path, identify_key(own), own)])

    def object_to_ledger(self, what: str, *, task: str, where: str) -> None:
        """Refuse a task's ledger, or warn of it once, as the policy says.

        Raises:
            StoreError: Signatures are required.
        """
        self.object_to(
            StoreError(
                what,
                where=where,
                todo=f"look at lorry history {task} with LORRY_SIGNING_POLICY=none; if all of it is right, "
                f"sign it: lorry sign {task}; otherwise restore it from a backup",
            ),
            subject=f"ledger {task}",
        )

    # What was seen before

    def recall_head(self, address: str, task: str) -> SeenHead | None:
        """Return the newest event of a task in a store that this machine has seen, if that is looked at."""
        return self._seen.read(address, task) if self._seen is not None and self.is_checking else None

    def check_head(self, address: str, task: str, *, seen: SeenHead | None, found: SeenHead | None) -> None:
        """Judge a head by what was seen before, and keep it as the newest one seen.

        Args:
            address: The store's address.
            task: The task.
            seen: What :meth:`recall_head` returned, before the head was read.
            found: The head; None: there is none.

        Raises:
            StoreError: Signatures are required, and the head is older than one seen before.
        """
        if not self.is_checking or self._seen is None:
            return
        try:
            check_not_older(seen, found, task=task, file=self._seen.locate(address, task))
        except StoreError as error:
            self.object_to(error, subject=f"head {task}")
        else:
            if found is not None and found != seen:
                self._seen.keep(address, task, found)

    @property
    def _password(self) -> str:
        return self.settings.password.get_secret_value()

    def _read_keys(self) -> tuple[PublicKey, ...]:
        if self._keys is None:
            self._keys = tuple(read_public_key(path) for path in self.settings.trusted_keys)
        return self._keys

    def _find_key(self, manifest: Manifest, place: Signatures, problems: list[str]) -> bool:
        for key in self._read_keys():
            bundle = place.read(key.id)
            if bundle is None:
                continue
            try:
                adapter_signatures.check_key_signature(manifest, bundle, key.path, key.id)
            except AdapterRejectedError as error:
                problems.append(f"its signature by {key.path.name}: {error.what}")
            else:
                return True
        return False

    def _find_identity(self, manifest: Manifest, place: Signatures, problems: list[str]) -> bool:
        identities = self.settings.trusted_identities
        names = [name for name in place.list_names() if name.startswith(KEYLESS_PREFIX)] if identities else []
        for name in names:
            bundle = place.read(name)
            for identity in identities if bundle is not None else ():
                try:
                    adapter_signatures.check_identity_signature(
                        manifest, bundle or b"", identity.name, identity.issuer, self.settings.sigstore_trust
                    )
                except AdapterRejectedError as error:
                    problems.append(f"its signature for {identity}: {error.what}")
                else:
                    return True
        return False

    def object_to(self, error: LorryError, *, subject: str) -> None:
        """Raise an error where signatures are required; else warn of its subject once."""
        if self.settings.is_required:
            raise error
        if subject not in self._warned:
            self._warned.add(subject)
            # Most processes have nothing to warn of, and are faster without it.
            import logging

            logging.getLogger(__name__).warning("not refused, since LORRY_SIGNING_POLICY is warn: %s", error)
