"""Says, from where it runs, which services are reached and which are not; needs Python alone.

Prints a line for each, and exits with 1 if anything is not as it should be.
"""

import argparse
import base64
import os
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence

PORTS = {"http": 80, "https": 443}


def try_connection(place: str, seconds: float) -> str | None:
    """Connect to HOST:PORT; return None if somebody answers, else the reason."""
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=seconds):
            return None
    except OSError as error:
        return str(error)


def check_refusal(place: str, seconds: float) -> str | None:
    """Return None if nobody answers at HOST:PORT, else what to ask."""
    answers = try_connection(place, seconds) is None
    return "it answers: are network policies enforced?" if answers else None


def find_s3(environment: Mapping[str, str]) -> str:
    """Name S3's host and port, as boto3 would find them."""
    region = environment.get("AWS_DEFAULT_REGION", "us-east-1")
    address = environment.get("AWS_ENDPOINT_URL_S3") or f"https://s3.{region}.amazonaws.com"
    parts = urllib.parse.urlsplit(address)
    return f"{parts.hostname}:{parts.port or PORTS[parts.scheme]}"


def read_status(address: str, seconds: float, login: str | None = None) -> int | str:
    """Return the status of a GET, or the reason why there is none."""
    request = urllib.request.Request(address)  # noqa: S310
    if login is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError as error:
        return str(error)


def check_login(address: str, environment: Mapping[str, str], seconds: float) -> str | None:
    """Return None if a page is served with the login and refused without it, else what happened."""
    user, password = environment.get("MLFLOW_TRACKING_USERNAME"), environment.get("MLFLOW_TRACKING_PASSWORD")
    without, with_login = read_status(address, seconds), read_status(address, seconds, f"{user}:{password}")
    if (without, with_login) == (401, 200):
        return None
    return f"without a login {without} instead of 401, with it {with_login} instead of 200"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try everything, and return 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reach", action="append", default=[], metavar="HOST:PORT", help="what must answer")
    parser.add_argument("--reach-s3", action="store_true", help="S3 must answer, found as boto3 finds it")
    parser.add_argument(
        "--login", action="append", default=[], metavar="URL", help="served with a login alone"
    )
    parser.add_argument(
        "--refuse", action="append", default=[], metavar="HOST:PORT", help="what must not answer"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to wait for each (default: 5)")
    options = parser.parse_args(arguments)
    answering = [*options.reach, *([find_s3(os.environ)] if options.reach_s3 else [])]
    outcomes = [
        *((f"{place} is reached", try_connection(place, options.seconds)) for place in answering),
        *(
            (f"{page} asks for a login", check_login(page, os.environ, options.seconds))
            for page in options.login
        ),
        *((f"{place} is closed", check_refusal(place, options.seconds)) for place in options.refuse),
    ]
    for what, fault in outcomes:
        print(f"ok    {what}" if fault is None else f"FAIL  {what}: {fault}")
    return 1 if any(fault for _, fault in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
