"""Requests that are nearly right: each is answered as the OpenAPI document says, and none with status 500."""

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorry_components.models.bases import resolve_base
from lorry_components.serving.application import Service
from lorry_components.serving.batching import Batcher
from lorry_components.serving.catalogue import Catalogue
from lorry_components.serving.engine import compute_batch
from lorry_components.serving.openapi import describe_routes
from lorry_components.serving.requests import Limits
from lorry_components.serving.shared_bases import SharedBases
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

from fuzz.mutations import mutate_bytes, mutate_json

FROZEN = max(Path(__file__).parents[3].glob("frozen/*/ledger.json")).parent
LIMITS = Limits(body_bytes=4000, rows=8, characters=200)
DOCUMENT = describe_routes("test", LIMITS)
OPERATIONS = [
    (method, path)
    for path, operations in DOCUMENT["paths"].items()
    for method in operations.keys() - {"parameters"}
]
# A task of one text a row, one of two, one that is not served, and what is no name.
TASKS = ("reviews-lora", "pairs-lora", "reviews-probe", "..%2F", "a b")
SEEDS = (
    {"inputs": ["a good film", "a bad one"]},
    {"inputs": [{"text": "a good film", "text_pair": "a bad one"}]},
    {
        "id": "1",
        "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a good film", "bad"]}],
    },
    {
        "inputs": [
            {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [[text]]}
            for name, text in (("text", "a good film"), ("text_pair", "a bad one"))
        ]
    },
    {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 8}}]},
)
Send = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def send(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Send]:
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.syspath_prepend(str(FROZEN))
        registry = Registry(LocalStore(FROZEN / "store"), tmp_path_factory.mktemp("cache"))
        catalogue = Catalogue(registry, SharedBases(resolve_base))
        catalogue.load(TASKS[:2])
        application = Service(catalogue, Batcher(compute_batch), LIMITS, "test").build_application()
        client = httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://a")
        lifespan = application.router.lifespan_context(application)
        runner.run(lifespan.__aenter__())
        yield lambda *given, **options: runner.run(client.request(*given, **options))
        runner.run(lifespan.__aexit__(None, None, None))
        runner.run(client.aclose())


def check_answer(answer: httpx.Response, path: str, method: str) -> int:
    """Compare an answer with the document, and return its status."""
    described = DOCUMENT["paths"][path][method]["responses"]
    assert str(answer.status_code) in described, answer.text
    (media, content), *_ = described[str(answer.status_code)]["content"].items()
    assert answer.headers["content-type"].partition(";")[0] == media
    if media == "application/json":
        jsonschema.validate(answer.json(), content["schema"])
    return answer.status_code


def write_body(seed: int, number: int, *, is_mutated: bool) -> bytes:
    body = json.dumps(SEEDS[seed]).encode()
    if not is_mutated:
        return body
    chance = random.Random(number)  # noqa: S311
    return chance.choice((mutate_json, mutate_json, mutate_bytes))(body, chance)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    operation=st.sampled_from(OPERATIONS),
    task=st.sampled_from(TASKS),
    version=st.sampled_from(("1", "2", "0", "-1", "x")),
    seed=st.integers(0, len(SEEDS) - 1),
    number=st.integers(0, 2**32),
    is_mutated=st.booleans(),
    header=st.sampled_from((None, "10", "5000", "-1", "x")),
)
def test_each_request_is_answered_as_the_document_says(
    send: Send,
    operation: tuple[str, str],
    task: str,
    version: str,
    seed: int,
    number: int,
    is_mutated: bool,
    header: str | None,
) -> None:
    method, path = operation
    body = write_body(seed, number, is_mutated=is_mutated) if method == "post" else None
    headers = {} if header is None else {"Inference-Header-Content-Length": header}
    answer = send(method, path.format(task=task, version=version), content=body, headers=headers)
    check_answer(answer, path, method)


@pytest.mark.parametrize(
    ("path", "task", "seed"),
    [
        ("/tasks/{task}/predict", "reviews-lora", 0),
        ("/tasks/{task}/predict", "pairs-lora", 1),
        ("/v2/models/{task}/infer", "reviews-lora", 2),
        ("/v2/models/{task}/versions/{version}/infer", "pairs-lora", 3),
    ],
)
def test_the_requests_that_are_changed_are_valid(send: Send, path: str, task: str, seed: int) -> None:
    schema = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.validate(SEEDS[seed], schema)
    answer = send("post", path.format(task=task, version=1), json=SEEDS[seed])
    assert check_answer(answer, path, "post") == 200


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [("get", "/nowhere", 404), ("get", "/tasks/", 404), ("get", "/tasks/a/predict", 405)],
)
def test_what_is_no_route_is_answered_in_json(send: Send, method: str, path: str, code: int) -> None:
    answer = send(method, path)
    assert answer.status_code == code
    assert "/openapi.json" in answer.json()["error"]
