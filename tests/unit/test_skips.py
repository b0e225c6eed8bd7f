"""The line about skipped tests: how many need what."""

import pytest

from fixtures.skips import summarize_skips


@pytest.mark.parametrize(
    ("reason", "need"),
    [
        ("Skipped: LORRY_TEST_DATA names no folder of data sets", "LORRY_TEST_DATA"),
        ("Skipped: there is no image localhost/lorry-slim:latest: run infra/ci/make-base-image.sh", "podman"),
        ("nginx is not installed (Debian: nginx-light)", "apt-get install nginx-light"),
        ("Skipped: kubectl is not installed (Debian: kubernetes-client)", "kubernetes-client"),
        ("Skipped: could not import 'diffusers'", "make check"),
        ("Skipped: diffusers is not installed: pip install lorry[images]", "make check"),
        ("PostgreSQL is not installed: there is no initdb on the PATH", "apt-get install postgresql"),
        ("root may write everywhere", "another user"),
        ("it is refused there", "see -rs"),
    ],
)
def test_a_reason_names_what_is_needed(reason: str, need: str) -> None:
    assert need in summarize_skips([reason])


def test_most_come_first_and_nothing_is_said_of_nothing() -> None:
    line = summarize_skips(["nginx", "PostgreSQL", "PostgreSQL"])
    assert line.startswith("2 need PostgreSQL (apt-get install postgresql), 1 need nginx")
    assert summarize_skips([]) == ""
