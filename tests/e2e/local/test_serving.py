"""``lorry serve`` as a process, on adapters of an earlier version: what it answers, and how it ends."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

# What the newest version froze: tests/frozen/freeze.py tells what lies where.
FROZEN = max(Path(__file__).parents[2].glob("frozen/*/ledger.json")).parent
# A task of each kind that is served -> the file of its rows.
SERVED = {
    "reviews-lora": "reviews.jsonl",
    "likeness-lora": "likeness/test.csv",
    "pairs-lora": "pairs.jsonl",
    "questions-lora": "questions.jsonl",
    "towns-bert-lora": "towns.jsonl",
}
ROWS = 5
# Rows of a request are padded to the longest, in another order than by `lorry predict`.
TOLERANCE = 1e-5


@dataclass
class Server:
    """A ``lorry serve`` that has said where it listens."""

    process: "subprocess.Popen[str]"
    url: str
    said: list[str]

    @property
    def address(self) -> tuple[str, int]:
        parsed = httpx.URL(self.url)
        assert parsed.port is not None
        return parsed.host, parsed.port

    def end(self) -> str:
        """Wait until it ends, and return what it has said since it listens."""
        _, err = self.process.communicate(timeout=60)
        return err

    def refuses_connections(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(self.address) != 0


Start = Callable[..., "contextlib.AbstractContextManager[Server]"]


@pytest.fixture(scope="module")
def frozen(make_workspace: Callable[[str], Any]) -> Any:
    """Return a folder with the frozen registry, and with the bases where its adapters find them."""
    workspace = make_workspace("frozen")
    shutil.copytree(FROZEN, workspace.folder / "frozen")
    return workspace


@pytest.fixture(scope="module")
def variables(frozen: Any) -> dict[str, str]:
    folder = frozen.folder / "frozen"
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(folder)]))
    return {"LORRY_STORE": str(folder / "store"), "PYTHONPATH": path}


@pytest.fixture(scope="module")
def start(frozen: Any, variables: dict[str, str]) -> Start:
    @contextlib.contextmanager
    def start(*arguments: str) -> Iterator[Server]:
        process = frozen.start("serve", *arguments, "--port", "0", **variables)
        said: list[str] = []
        try:
            for line in process.stderr:
                said.append(line)
                if line.startswith("serving at "):
                    break
            else:
                pytest.fail("".join(said))
            yield Server(process, said[-1].removeprefix("serving at ").split(";")[0], said)
        finally:
            process.kill()
            process.communicate()

    return start


@pytest.fixture(scope="module")
def server(start: Start) -> Iterator[Server]:
    with start(*SERVED) as server:
        yield server


@pytest.fixture(scope="module")
def predict(frozen: Any, variables: dict[str, str]) -> Callable[[str], list[dict[str, Any]]]:
    """Return what ``lorry predict --json`` prints for the first rows of a task's data, each task once."""
    known: dict[str, list[dict[str, Any]]] = {}

    def predict(task: str) -> list[dict[str, Any]]:
        if task not in known:
            source = frozen.folder / "frozen" / "data" / SERVED[task]
            lines = source.read_text("utf-8").splitlines(keepends=True)[: ROWS + (source.suffix == ".csv")]
            rows = frozen.folder / f"{task}{source.suffix}"
            rows.write_text("".join(lines), "utf-8")
            known[task] = frozen.run_json("predict", task, "--file", rows, **variables)
        return known[task]

    return predict


def take_texts(predictions: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{name: row[name] for name in ("text", "text_pair") if name in row} for row in predictions]


def assert_close(found: Any, expected: Any) -> None:
    """Compare two JSON documents; numbers may differ a little."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_close(found[name], expected[name])
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=TOLERANCE)
    else:
        assert found == expected


@pytest.mark.parametrize("task", SERVED)
def test_plain_http_answers_what_predict_prints(server: Server, predict: Any, task: str) -> None:
    expected = predict(task)
    answer = httpx.post(f"{server.url}/tasks/{task}/predict", json={"inputs": take_texts(expected)})
    assert answer.status_code == 200, answer.text
    assert_close(answer.json(), expected)


@pytest.mark.parametrize("task", SERVED)
def test_tritonclient_gets_what_predict_prints(server: Server, predict: Any, task: str) -> None:
    from tritonclient import http

    expected = predict(task)
    rows = take_texts(expected)
    client = http.InferenceServerClient("{}:{}".format(*server.address))
    tensors = []
    for name in rows[0]:
        tensor = http.InferInput(name, [len(rows)], "BYTES")
        tensor.set_data_from_numpy(np.asarray([row[name] for row in rows], dtype=object))
        tensors.append(tensor)
    answer = client.infer(task, tensors)
    client.close()
    for name in expected[0].keys() - rows[0].keys():
        cells, column = answer.as_numpy(name).tolist(), [row[name] for row in expected]
        if name == "scores":
            classes = answer.as_numpy("classes").tolist()
            cells = [dict(zip(classes, row, strict=True)) for row in cells]
        elif isinstance(column[0], list):
            cells = [json.loads(cell) for cell in cells]
        assert_close(cells, column)


def test_it_answers_as_registered(server: Server, frozen: Any, variables: dict[str, str]) -> None:
    checked = frozen.run("serve", "--check", server.url, **variables)
    assert [line.partition(", within")[0] for line in checked.out.splitlines()] == [
        "likeness-lora v1 answers as registered",
        "pairs-lora v1 answers as registered",
        "questions-lora v1 is not compared: what is recorded of its kind are no answers",
        "reviews-lora v1 answers as registered",
        "towns-bert-lora v1 is not compared: what is recorded of its kind are no answers",
    ]
    checked = frozen.run("serve", "--check", server.url, "reviews-probe", code=9, **variables)
    assert "reviews-probe" in checked.err


def test_it_says_once_where_it_is_served(start: Start) -> None:
    with start("reviews-lora") as server:
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert [line for line in [*server.said, server.end()] if "serving at" in line] == server.said[-1:]


def send_half(server: Server, body: bytes) -> socket.socket:
    """Send a request but for the second half of its body."""
    connection = socket.create_connection(server.address, timeout=60)
    head = f"POST /tasks/reviews-lora/predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[: len(body) // 2])
    return connection


def test_sigterm_finishes_what_was_begun(start: Start, frozen: Any) -> None:
    body = b'{"inputs": ["a lovely film"]}'
    with start("reviews-lora") as server, send_half(server, body) as connection:
        # Connections are accepted in order: when this one is answered, the first has been.
        assert httpx.get(f"{server.url}/v2/health/live").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        frozen.wait_until(server.refuses_connections, "no new connections", 60)
        connection.sendall(body[len(body) // 2 :])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert "Traceback" not in server.end()
        assert server.process.returncode == -signal.SIGTERM


def test_a_request_is_cut_off_when_the_grace_is_over(start: Start) -> None:
    with (
        start("reviews-lora", "--grace", "0") as server,
        send_half(server, b'{"inputs": ["a lovely film"]}') as connection,
    ):
        assert httpx.get(f"{server.url}/v2/health/live").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        said = server.end()
        assert server.process.returncode == -signal.SIGTERM
        assert "Traceback" not in said
        # It was not the time for the body that ended it: that is answered 408.
        assert connection.recv(65536).startswith(b"HTTP/1.1 503")


@pytest.mark.slow
def test_champions_change_under_load_without_a_failed_or_mixed_answer(
    start: Start, frozen: Any, variables: dict[str, str]
) -> None:
    """Eight clients, a promotion and a rollback: each answer is that of the version that it names."""
    task, texts = "reviews-over-time", ["a lovely film", "dull", "the cast is awful", "a good plot"]
    seen: dict[str, set[str]] = {"2": set(), "3": set()}
    failed: list[str] = []
    changes: list[str] = []
    has_ended = threading.Event()

    def ask(server: Server) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not has_ended.is_set() and not failed:
                answer = client.post(f"/tasks/{task}/predict", json={"inputs": texts})
                if answer.status_code != 200:
                    failed.append(answer.text)
                    return
                scores = [round(row["scores"]["good"], 4) for row in answer.json()]
                version = answer.headers["lorry-version"]
                seen[version].add(json.dumps([answer.headers["lorry-adapter"], scores]))
                if changes[-1:] != [version]:
                    changes.append(version)

    def wait_for(version: str) -> None:
        frozen.wait_until(lambda: bool(failed) or changes[-1:] == [version], f"v{version} answers", 60)

    with start(task, "--poll", "0.1") as server:
        threads = [threading.Thread(target=ask, args=(server,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_for("2")
        frozen.run("promote", task, "v3", "--reason", "to try it", **variables)
        wait_for("3")
        frozen.run("rollback", task, "--reason", "it is worse", **variables)
        wait_for("2")
        has_ended.set()
        for thread in threads:
            thread.join(60)
        assert not failed
        # One adapter and one set of numbers for each: no answer is of both.
        assert [len(answers) for answers in seen.values()] == [1, 1]
        assert seen["2"] != seen["3"]


def test_an_address_in_use_is_told_before_anything_is_loaded(frozen: Any, variables: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = frozen.run("serve", "reviews-lora", "--port", str(port), code=2, **variables)
    (sentence,) = refused.err.strip().split("\n\n")
    assert f"127.0.0.1:{port}" in sentence
    assert "in use" in sentence
    assert "reviews-lora v" not in refused.err
