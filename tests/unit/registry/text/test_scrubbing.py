"""Secrets are taken out of texts and tracebacks."""

import pytest

from lorry_registry.text.scrubbing import find_secrets, format_scrubbed, scrub_text

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED",
    "AWS_SECRET_ACCESS_KEY": "aws-planted",
    "AWS_SESSION_TOKEN": "session-planted",
    "HF_TOKEN": "hf_planted",
    "MLFLOW_TRACKING_PASSWORD": "password-planted",
    "MLFLOW_TRACKING_TOKEN": "token-planted",
    "MLFLOW_TRACKING_URI": "https://me:uri%20planted@host/?api_key=query-planted",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "PWD": "/home/me",
    "LORRY_STORE": "/home/me/store",
}


def test_the_secrets_of_an_environment_are_those_of_variables_and_of_addresses() -> None:
    assert find_secrets(ENVIRONMENT) == {
        "AKIAPLANTED",
        "aws-planted",
        "session-planted",
        "hf_planted",
        "password-planted",
        "token-planted",
        "me:uri%20planted",
        "me:uri planted",
        "uri%20planted",
        "uri planted",
        "query-planted",
    }


def test_a_text_shows_no_secret() -> None:
    text = "GET https://name:secret@host/x failed: key hf_planted; /api?token=abc&run=1 at s3://bucket/x"
    assert scrub_text(text, find_secrets(ENVIRONMENT)) == (
        "GET https://***@host/x failed: key ***; /api?token=***&run=1 at s3://bucket/x"
    )


def test_a_traceback_shows_no_secret_of_any_cause() -> None:
    try:
        try:
            raise OSError("cannot open https://me:hunter2@host")
        except OSError as error:
            raise ValueError("no token-planted") from error
    except ValueError as error:
        trace = format_scrubbed(error, find_secrets(ENVIRONMENT))
    assert "hunter2" not in trace
    assert "token-planted" not in trace
    assert "OSError: cannot open https://***@host" in trace
    assert "ValueError: no ***" in trace


@pytest.mark.parametrize("between", ["", ",", ";", "|"])
def test_addresses_without_a_gap_are_scrubbed_each(between: str) -> None:
    text = between.join(["https://ann:wonderland@one.example", "postgresql://bob:sesame123@two.example/db"])
    scrubbed = scrub_text(text)
    assert "wonderland" not in scrubbed
    assert "sesame123" not in scrubbed
    assert "one.example" in scrubbed
    assert "two.example" in scrubbed


def test_an_address_that_became_a_path_is_scrubbed() -> None:
    # pathlib makes one slash of two.
    assert (
        scrub_text("/work/https:/ann:wonderland@host/x.csv is not there")
        == "/work/https:/***@host/x.csv is not there"
    )
    for plain in ("file:/a/b/c", "in C:/Users/ann@work/x", "see https:/host/name@v1"):
        assert scrub_text(plain) == plain
