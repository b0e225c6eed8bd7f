"""``lorry keygen``: a key pair to sign with."""

from pathlib import Path

import click

from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    load_settings,
    print_json,
    print_warning,
)
from lorry_registry.cli.prose import print_line
from lorry_registry.signing.keys import PASSWORD_VARIABLE, write_key_pair


@click.command(
    "keygen",
    epilog=format_examples(
        "lorry keygen ~/.lorry-signing.key        encrypted if LORRY_SIGNING_KEY_PASSWORD is set",
        "lorry keygen signing.key --json",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def generate_keys(file: Path, as_json: bool) -> None:
    """Write a key pair to sign adapters and ledgers with.

    The private key (ECDSA on P-256, PKCS 8) goes to FILE, which only you can read, and the public key to
    FILE.pub. The private key is encrypted if LORRY_SIGNING_KEY_PASSWORD is set. Nothing is overwritten.
    """
    password = load_settings().signing.password.get_secret_value()
    public = write_key_pair(file.absolute(), password)
    if as_json:
        print_json({"private_key": str(file.absolute()), "public_key": str(public.path), "id": public.id})
        return
    print_line(f"private key: {file}\npublic key:  {file}.pub\nid:          {public.id}")
    print_line(
        f"\nWho signs sets    LORRY_SIGNING_KEY={file.absolute()}\n"
        f"Who checks sets   LORRY_TRUSTED_KEYS={public.path} and LORRY_SIGNING_POLICY=require"
    )
    if not password:
        print_warning(f"the private key is not encrypted: {PASSWORD_VARIABLE} is not set")
