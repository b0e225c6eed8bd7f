"""Champions of one base behind one address: what they answer, and what is refused."""

import contextlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from lorry_components.inference import load_adapter
from lorry_components.models.bases import resolve_base
from lorry_components.serving.application import Service
from lorry_components.serving.batching import Batcher, Work
from lorry_components.serving.catalogue import Catalogue, choose_tasks
from lorry_components.serving.engine import compute_batch
from lorry_components.serving.requests import Limits
from lorry_components.serving.server import build_protocol, listen
from lorry_components.serving.shared_bases import SharedBases
from lorry_components.serving.tokens import Grant, add_token, read_grants
from lorry_registry.adapters.verification import describe_file
from lorry_registry.errors import UsageError
from lorry_registry.manifest import ADAPTER_FILES, Manifest
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

TEXTS = ["a good film", "bad", "the story was so dull and the cast is quite awful", "lovely plot"]
# Task -> data, method.
SERVED = {
    "classes-lora": ("classification", "lora"),
    "classes-probe": ("classification", "probe"),
    "numbers-probe": ("regression", "probe"),
    "numbers-prompt": ("regression", "p-tuning"),
    "numbers-bitfit": ("regression", "bitfit"),
    "pairs-lora": ("pair", "lora"),
}


def publish(registry: Registry, task: str, trained: Any, folder: Path) -> str:
    """Register a trained adapter under the name of a task, as its champion."""
    shutil.copytree(trained.adapter, folder)
    (folder / "README.md").write_text("# an adapter\n")
    summary = trained.summary
    manifest = Manifest(
        task=task,
        kind=trained.spec.kind,
        base=summary.base,
        method=trained.spec.method.name,
        recipe=trained.spec.describe_recipe(),
        inputs=summary.inputs,
        labels=summary.labels,
        head=summary.head,
        parameters=summary.parameters,
        evaluation=trained.report.evaluation,
        probe=trained.report.probe,
        libraries=summary.libraries,
        files=tuple(describe_file(folder / name) for name in ADAPTER_FILES),
    )
    adapter_id = registry.publish(folder, manifest)
    state = registry.ledger.read_state(task)
    before = state.champion.version if state.champion else None
    registry.register(task, adapter_id, promote=True, judged_champion=before, reasons=["better"])
    return adapter_id


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, trained: Callable[..., Any]) -> Registry:
    root = tmp_path_factory.mktemp("registry")
    registry = Registry(LocalStore(root / "store"), root / "cache")
    for task, (data, method) in SERVED.items():
        publish(registry, task, trained(data, method), root / task)
    return registry


@dataclass(frozen=True)
class Running:
    """A server, and what it serves."""

    address: str
    catalogue: Catalogue
    passes: list[list[str]]

    @property
    def url(self) -> str:
        return f"http://{self.address}"


@contextlib.contextmanager
def start_server(
    catalogue: Catalogue, limits: Limits, *, grants: Sequence[Grant] | None = None, **batching: Any
) -> Iterator[Running]:
    passes: list[list[str]] = []

    def compute(batch: Any) -> Any:
        passes.append([work.version.task for work in batch])
        return compute_batch(batch)

    service = Service(catalogue, Batcher(compute, **batching), limits, "test", grants=grants)
    config = uvicorn.Config(
        service.build_application(), port=0, log_level="error", http=build_protocol(limits), ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Running(f"127.0.0.1:{port}", catalogue, passes)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def running(registry: Registry) -> Iterator[Running]:
    catalogue = Catalogue(registry, SharedBases(resolve_base))
    catalogue.load(choose_tasks(registry, []))
    assert not catalogue.refused
    with start_server(
        catalogue, Limits(body_bytes=20_000, rows=50, characters=2_000, seconds=1.0)
    ) as running:
        yield running


def make_rows(task: str) -> list[dict[str, str]]:
    if SERVED[task][0] != "pair":
        return [{"text": text} for text in TEXTS]
    return [{"text": text, "text_pair": pair} for text, pair in zip(TEXTS, reversed(TEXTS), strict=True)]


def predict_apart(registry: Registry, task: str, rows: list[dict[str, str]]) -> list[Any]:
    """Predict as ``lorry predict`` does, each row by itself: no padding at all."""
    predictor = load_adapter(registry.fetch(registry.resolve(task).adapter_id)).predictor
    return [predictor.predict([row])[0] for row in rows]


# The tiny base is random: a head that is fitted to it for numbers is a difference of terms some hundred times
# larger, whose last digits depend on the size of a batch.
TOLERANCE = 5e-4


def assert_close(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_close(found[name], value)
        else:
            assert found[name] == (value if isinstance(value, str) else pytest.approx(value, abs=TOLERANCE))


@pytest.mark.parametrize("task", SERVED)
def test_plain_answers_are_those_of_predict(running: Running, registry: Registry, task: str) -> None:
    rows = make_rows(task)
    answer = httpx.post(f"{running.url}/tasks/{task}/predict", json={"inputs": rows})
    assert answer.status_code == 200, answer.text
    assert answer.headers["lorry-version"] == "1"
    assert answer.headers["lorry-adapter"] == registry.resolve(task).adapter_id
    for found, row, expected in zip(answer.json(), rows, predict_apart(registry, task, rows), strict=True):
        assert_close(found, {**row, **expected})


@pytest.mark.parametrize("task", SERVED)
@pytest.mark.parametrize("is_binary", [False, True])
def test_a_client_of_the_protocol_gets_the_same_numbers(
    running: Running, registry: Registry, task: str, is_binary: bool
) -> None:
    from tritonclient import http

    rows = make_rows(task)
    client = http.InferenceServerClient(running.address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(task)
    assert client.is_model_ready(task, "1")
    metadata = client.get_model_metadata(task)
    tensors = []
    for tensor in metadata["inputs"]:
        given = http.InferInput(tensor["name"], [len(rows)], tensor["datatype"])
        cells = np.asarray([row[tensor["name"]] for row in rows], dtype=object)
        given.set_data_from_numpy(cells, binary_data=is_binary)
        tensors.append(given)
    answer = client.infer(task, tensors, request_id="mine")
    expected = predict_apart(registry, task, rows)
    response = answer.get_response()
    assert response["id"] == "mine"
    assert response["model_version"] == "1"
    assert response["parameters"]["adapter"] == registry.resolve(task).adapter_id
    for name, value in expected[0].items():
        found = answer.as_numpy(name)
        if isinstance(value, str):
            assert [str(cell) for cell in found] == [each[name] for each in expected]
            continue
        if isinstance(value, dict):
            assert [str(cell) for cell in answer.as_numpy("classes")] == list(value)
            shares = [list(each[name].values()) for each in expected]
            np.testing.assert_allclose(found, shares, atol=TOLERANCE)
            continue
        np.testing.assert_allclose(found, [each[name] for each in expected], atol=TOLERANCE)
    client.close()


def test_heads_of_linear_probes_share_one_pass(running: Running, registry: Registry) -> None:
    versions = [running.catalogue.find(task) for task in ("classes-probe", "numbers-probe")]
    assert versions[0].group == versions[1].group
    rows = [make_rows("classes-probe")[:3], make_rows("numbers-probe")[1:]]
    answers = compute_batch([Work(version, part) for version, part in zip(versions, rows, strict=True)])
    for answer, version, part in zip(answers, versions, rows, strict=True):
        assert isinstance(answer, list)
        for found, expected in zip(answer, predict_apart(registry, version.task, part), strict=True):
            assert_close(found, expected)


def test_rows_of_lora_adapters_share_one_pass(tmp_path: Path, trained: Callable[..., Any]) -> None:
    registry = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")
    for task, data in {"three": "classification", "number": "regression"}.items():
        publish(registry, task, trained(data, "lora", pooling="mean"), tmp_path / task)
    catalogue = Catalogue(registry, SharedBases(resolve_base))
    catalogue.load(choose_tasks(registry, []))
    versions = [catalogue.find(task) for task in ("three", "number", "three")]
    assert versions[0].group == versions[1].group
    parts = [[{"text": text} for text in TEXTS[start:]] for start in range(3)]
    # More rows than a batch, so that those of an adapter are computed in several.
    parts[1] *= 30
    answers = compute_batch([Work(version, part) for version, part in zip(versions, parts, strict=True)])
    for answer, version, part in zip(answers, versions, parts, strict=True):
        assert isinstance(answer, list)
        expected = predict_apart(registry, version.task, part)
        for found, one in zip(answer, expected, strict=True):
            assert_close(found, one)
        # The comparison finds an adapter that does not act.
        with version.loaded.predictor.adapted.without_adapter():
            base = version.loaded.predictor.predict(part)
        with pytest.raises(AssertionError):
            for found, other in zip(answer, base, strict=True):
                assert_close(found, other)


def test_the_base_is_in_memory_once(running: Running) -> None:
    places = [
        {
            parameter.data_ptr()
            for parameter in running.catalogue.find(task).loaded.predictor.adapted.model.parameters()
            if parameter.numel() >= 1024
        }
        for task in ("classes-lora", "numbers-prompt", "numbers-bitfit")
    ]
    for other in places[1:]:
        assert len(places[0] & other) >= 10


def test_requests_at_once_become_one_batch(registry: Registry, running: Running) -> None:
    with (
        start_server(running.catalogue, Limits(), window=3.0) as slow,
        httpx.Client(base_url=slow.url) as client,
    ):
        answers: list[Any] = []
        tasks = ["classes-probe", "numbers-probe", "classes-lora", "classes-probe"]

        def ask(task: str) -> None:
            answers.append(client.post(f"/tasks/{task}/predict", json={"inputs": TEXTS[:1]}).status_code)

        threads = [threading.Thread(target=ask, args=(task,)) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [200] * 4
        assert sorted(map(len, slow.passes)) == [1, 3]


def test_answers_are_sent_at_once() -> None:
    """Headers and body are two writes: the second must not wait until the first is acknowledged."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_full_queue_is_said_so(running: Running) -> None:
    with start_server(running.catalogue, Limits(), window=3.0, queue_rows=3) as slow:
        codes: list[int] = []
        headers: list[Any] = []

        def ask() -> None:
            answer = httpx.post(f"{slow.url}/tasks/classes-lora/predict", json={"inputs": TEXTS[:2]})
            codes.append(answer.status_code)
            headers.append(answer.headers.get("retry-after"))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(codes) == [200, 503, 503]
        assert sorted(headers, key=str) == ["1", "1", None]


@pytest.mark.parametrize(
    ("path", "body", "code", "said"),
    [
        ("/tasks/classes-lor/predict", b'{"inputs": ["a"]}', 404, "did you mean 'classes-lora'?"),
        ("/v2/models/classes-lora/versions/7/infer", b"{}", 404, "v1, the champion"),
        ("/tasks/classes-lora/predict", b"{", 400, "not JSON"),
        ("/tasks/classes-lora/predict", b"[" * 10_000, 400, "not JSON"),
        ("/tasks/classes-lora/predict", b"[1]", 400, "inputs"),
        ("/tasks/classes-lora/predict", b'{"inputs": []}', 400, "0 rows"),
        ("/tasks/classes-lora/predict", b'{"inputs": [""]}', 400, "is empty"),
        ("/tasks/classes-lora/predict", b'{"inputs": ["\\ud800"]}', 400, "surrogate"),
        ("/tasks/classes-lora/predict", json.dumps({"inputs": ["a"] * 51}).encode(), 400, "51 rows"),
        ("/tasks/classes-lora/predict", json.dumps({"inputs": ["a" * 2001]}).encode(), 400, "2,001"),
        ("/tasks/classes-lora/predict", b" " * 20_001, 413, "too large"),
        ("/tasks/pairs-lora/predict", b'{"inputs": ["a"]}', 400, "text_pair"),
        ("/v2/models/classes-lora/infer", b"{}", 400, "tensors"),
        ("/v2/models/classes-lora/infer", b'{"inputs": [{"datatype": "FP32"}]}', 400, "BYTES"),
        (
            "/v2/models/classes-lora/infer",
            b'{"inputs": [{"name": "text", "datatype": "BYTES", "data": [1]}]}',
            400,
            "not a string",
        ),
    ],
)
def test_bad_requests_are_refused(running: Running, path: str, body: bytes, code: int, said: str) -> None:
    answer = httpx.post(f"{running.url}{path}", content=body)
    assert answer.status_code == code
    assert said in answer.json()["error"]


def test_a_token_is_asked_for_and_opens_its_tasks(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    token = add_token(path, ["classes-lora", "to-come"])
    everything = add_token(path, None)
    paths = ["/tasks/{}/predict", "/v2/models/{}/infer", "/v2/models/{}/versions/1/infer"]
    paths += ["/v2/models/{}", "/v2/models/{}/ready"]
    with start_server(running.catalogue, Limits(), grants=read_grants(path)) as asked:

        def ask(path: str, given: str | None) -> httpx.Response:
            headers = {} if given is None else {"Authorization": given}
            body = {} if "infer" in path else {"inputs": TEXTS}
            if path.endswith(("predict", "infer")):
                return httpx.post(f"{asked.url}{path}", json=body, headers=headers)
            return httpx.get(f"{asked.url}{path}", headers=headers)

        for path_of in paths:
            sound = 400 if path_of.endswith("infer") else 200
            for task, given, code in [
                ("classes-lora", None, 401),
                ("classes-lora", "Bearer", 401),
                ("classes-lora", "Bearer wrong", 401),
                ("classes-lora", f"Basic {token}", 401),
                ("classes-lora", f"bearer {token}", sound),
                ("pairs-lora", f"Bearer {token}", 403),
                ("nowhere", f"Bearer {token}", 403),
                ("to-come", f"Bearer {token}", 404),
                ("nowhere", f"Bearer {everything}", 404),
            ]:
                answer = ask(path_of.format(task), given)
                assert answer.status_code == code, (path_of, task, given, answer.text)
                assert ("www-authenticate" in answer.headers) == (code == 401)
                # The names of other tasks are for other tokens.
                assert "pairs-lora" not in answer.text or given == f"Bearer {everything}"
        assert ask("/tasks", None).status_code == 401
        listed = ask("/tasks", f"Bearer {token}").json()["tasks"]
        assert [entry["task"] for entry in listed] == ["classes-lora"]
        for open_to_all in ("/v2", "/v2/health/live", "/v2/health/ready", "/openapi.json"):
            assert ask(open_to_all, None).status_code == 200


def test_slow_clients_are_cut_off(running: Running) -> None:
    import socket

    host, port = running.address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as silent:
        silent.sendall(b"POST /tasks/classes-lora/predict HTTP/1.1\r\nHost: ")
        assert silent.recv(1) == b""
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(b"POST /tasks/classes-lora/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        assert b"408" in slow.recv(100)


def test_what_fails_is_refused_and_the_others_are_served(tmp_path: Path, trained: Callable[..., Any]) -> None:
    registry = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")
    for task in ("classes-probe", "numbers-probe"):
        publish(registry, task, trained(*SERVED[task]), tmp_path / task)
    resolution = registry.resolve("numbers-probe")
    assert resolution.path is not None
    weights = resolution.path / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    catalogue = Catalogue(registry, SharedBases(resolve_base))
    catalogue.load(choose_tasks(registry, []))
    with start_server(catalogue, Limits()) as running:
        ready = httpx.get(f"{running.url}/v2/models/numbers-probe/ready")
        assert ready.status_code == 503
        assert ready.json()["error"]
        answer = httpx.post(f"{running.url}/tasks/numbers-probe/predict", json={"inputs": TEXTS})
        assert answer.status_code == 503
        listed = httpx.get(f"{running.url}/tasks").json()
        assert [entry["task"] for entry in listed["tasks"]] == ["classes-probe"]
        assert list(listed["refused"]) == ["numbers-probe"]


def test_an_empty_registry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no task has a champion"):
        choose_tasks(Registry(LocalStore(tmp_path / "store"), tmp_path / "cache"), [])


def test_the_openapi_document_has_each_route(running: Running) -> None:
    document = httpx.get(f"{running.url}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        filled = path.replace("{task}", "classes-lora").replace("{version}", "1")
        if "get" in operations:
            assert httpx.get(f"{running.url}{filled}").status_code == 200, path
        else:
            assert httpx.post(f"{running.url}{filled}", content=b"{").status_code == 400, path
