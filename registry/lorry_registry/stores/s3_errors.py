"""The meaning of an error of boto3: whether to try again, and the message for the user."""

import re
from collections.abc import Mapping, Sequence

from botocore import exceptions as boto
from botocore.exceptions import ClientError

from lorry_registry.errors import StoreError

_TRANSIENT_CODES = frozenset(
    {
        "SlowDown",
        "ServiceUnavailable",
        "InternalError",
        "RequestTimeout",
        "RequestTimeoutException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",
        "OperationAborted",
        # The bytes were damaged on their way: the server refused to store them.
        "BadDigest",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
_TRANSIENT_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504})
_TRANSIENT_ERRORS = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.ResponseStreamingError,
    boto.IncompleteReadError,
    boto.FlexibleChecksumError,
)
_MISSING_CODES = frozenset({"NoSuchKey", "404", "NotFound"})

_CREDENTIALS_TODO = (
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role gives credentials"
)
_REFUSED = ("S3 does not accept the credentials", "renew or correct them: " + _CREDENTIALS_TODO)
_CLOCK = ("the clock of this machine is too far from the server's", "set the clock, for example by NTP")
_REGION = ("the bucket is in another region", "set AWS_DEFAULT_REGION to the region of the bucket")
_EXPLANATIONS: Mapping[str, tuple[str, str]] = {
    "NoSuchBucket": (
        "there is no such bucket",
        "create it, or correct LORRY_STORE; AWS_ENDPOINT_URL_S3 names the server that was asked",
    ),
    "InvalidAccessKeyId": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
    "ExpiredToken": _REFUSED,
    "InvalidToken": _REFUSED,
    "TokenRefreshRequired": _REFUSED,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "301": _REGION,
}
# What is said of errors without an answer from S3, by their class; the first that fits counts.
_SILENCES: Sequence[tuple[tuple[type[Exception], ...], str, str]] = (
    (
        (boto.NoCredentialsError, boto.PartialCredentialsError),
        "there are no credentials for S3",
        _CREDENTIALS_TODO,
    ),
    (
        (boto.CredentialRetrievalError, boto.SSOError),
        "the credentials for S3 cannot be fetched",
        "log in again, or " + _CREDENTIALS_TODO,
    ),
    (
        (boto.SSLError,),
        "{endpoint} has no certificate that is trusted here",
        "set AWS_CA_BUNDLE to the certificate of your authority",
    ),
    (
        (boto.FlexibleChecksumError,),
        "what arrives is not what was stored: the checksums differ",
        "try again; if this happens again, check the network and the server's disks",
    ),
    (
        _TRANSIENT_ERRORS,
        "{endpoint} cannot be reached, or the connection broke ({name})",
        "check AWS_ENDPOINT_URL_S3 and the network, and run the command again",
    ),
)
_MAX_REASON = 200
_USER_INFO = re.compile(r"\S+@")


def find_code(error: Exception) -> str:
    """Return the code that S3 gave, such as ``NoSuchKey``; "" if no answer came."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def find_status(error: Exception) -> int:
    """Return the status of the answer; 0 if no answer came."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_missing(error: Exception) -> bool:
    """Return whether S3 says that there is no such key."""
    return find_code(error) in _MISSING_CODES


def is_condition_failed(error: Exception) -> bool:
    """Return whether S3 says that the condition of a write does not hold."""
    return find_code(error) in ("PreconditionFailed", "412") or find_status(error) == 412


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed a moment later."""
    if isinstance(error, boto.SSLError):
        return False
    if isinstance(error, ClientError):
        return find_code(error) in _TRANSIENT_CODES or find_status(error) in _TRANSIENT_STATUS
    return isinstance(error, _TRANSIENT_ERRORS)


def explain_error(error: Exception, *, verb: str, action: str, where: str, endpoint: str) -> StoreError:
    """Return the error that a user sees.

    Args:
        error: boto3's error.
        verb: What was tried: ``read``, ``write``, ``delete`` or ``list``.
        action: The permission that it needs, such as ``s3:GetObject``.
        where: The address in the store.
        endpoint: The server that was asked; it holds no credentials.
    """
    if isinstance(error, ClientError):
        what, todo = _explain_answer(error, action, endpoint)
    else:
        what, todo = _explain_silence(error, endpoint)
    return StoreError(f"cannot {verb}: {what}", where=where, todo=todo)


def _explain_answer(error: ClientError, action: str, endpoint: str) -> tuple[str, str]:
    code = find_code(error)
    if code in _EXPLANATIONS:
        return _EXPLANATIONS[code]
    if code in ("AccessDenied", "403", "AllAccessDisabled"):
        what = f"access denied, {action} is not allowed"
        todo = f"allow {action} on this address for the credentials in use"
        if action == "s3:GetObject":
            todo += "; without s3:ListBucket S3 says the same of a key that does not exist"
        return what, todo
    reason = f"{code or find_status(error)} {error.response.get('Error', {}).get('Message', '')}".strip()
    reason = reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]}…"
    if code.startswith("KMS"):
        return reason, "check LORRY_S3_KMS_KEY, and that the credentials may use this key"
    if is_transient(error):
        return f"S3 still answers {reason} after several attempts", "try again later"
    if code == "NotImplemented" or find_status(error) == 501:
        return f"{endpoint} lacks what Lorry needs: {reason}", "use a server that has conditional writes"
    return f"S3 answers {reason}", f"check LORRY_STORE and the AWS_* settings; {endpoint} was asked"


def _explain_silence(error: Exception, endpoint: str) -> tuple[str, str]:
    for kinds, what, todo in _SILENCES:
        if isinstance(error, kinds):
            return what.format(endpoint=endpoint, name=type(error).__name__), todo
    # Settings of boto3: their messages name the profile or the parameter, and quote an endpoint as it is.
    return _USER_INFO.sub("***@", str(error))[:_MAX_REASON], "check LORRY_STORE and the AWS_* settings"
