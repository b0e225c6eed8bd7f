"""Takes secrets out of texts before they are logged or stored: messages, and tracebacks above all.

The message of a library's error may hold an address as it was given, with its password, and Python prints it
with every error that it caused.
"""

import re
import traceback
from collections.abc import Collection, Mapping

from lorry_registry.text.addresses import HIDDEN, hide_query_secrets, hide_secrets, list_secrets

_SECRET_VARIABLE = re.compile(
    r"(.*_)?(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_KEY|ACCESS_KEY_ID|SECRET_KEY|CREDENTIALS?)",
    re.IGNORECASE,
)
# A shorter value is a switch or a placeholder, and would be found in every other word.
_SHORTEST = 6
# Without a bound on the scheme, a long run of letters would be read again from each of them. A path has one
# slash where an address that was taken for one had two.
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,30}:/{1,2}"
# An address ends where the next one begins, even if nothing stands between them.
_ADDRESS = re.compile(rf"{_SCHEME}(?:(?!{_SCHEME})[^\s\"'<>])*")


def find_secrets(environment: Mapping[str, str]) -> frozenset[str]:
    """Return the secrets in an environment: passwords, tokens and keys, and those inside of addresses."""
    values = {value for name, value in environment.items() if _SECRET_VARIABLE.fullmatch(name)}
    for value in environment.values():
        values |= list_secrets(value)
    return frozenset(value for value in values if len(value) >= _SHORTEST)


def scrub_text(text: str, secrets: Collection[str] = ()) -> str:
    """Return a text with ``***`` for each secret, and for what is secret in any address.

    Args:
        text: A message or a traceback.
        secrets: The values that must not appear.
    """
    # The longest first: one secret may be a part of another.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return hide_query_secrets(_ADDRESS.sub(lambda address: hide_secrets(address.group()), text))


def format_scrubbed(error: BaseException, secrets: Collection[str] = ()) -> str:
    """Return the traceback of an error, with its causes, without secrets."""
    return scrub_text("".join(traceback.format_exception(error)), secrets)
