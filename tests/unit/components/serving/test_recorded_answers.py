"""Which answers of a server are taken for those of the registered adapter: of ``lorry serve`` and of vLLM."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lorry_components.models.bases import resolve_base
from lorry_components.serving import recorded_answers
from lorry_components.serving.recorded_answers import Checked, Server
from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_registry.errors import StoreError, UsageError
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

FROZEN = max(Path(__file__).parents[3].glob("frozen/*/ledger.json")).parent
TASK, NUMBERS, QUESTIONS = "reviews-over-time", "likeness-lora", "questions-lora"
WRITING = "restaurants-gpt2-lora"
Answers = Callable[[str, Any], Any]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(LocalStore(FROZEN / "store"), tmp_path_factory.mktemp("cache"))


def check_server(registry: Registry, server: Server, tasks: list[str]) -> list[Checked]:
    return recorded_answers.check_server(registry, server, tasks, find_base=resolve_base)


@contextlib.contextmanager
def serve(answer: Answers) -> Iterator[tuple[Server, list[tuple[str, Any]]]]:
    """Serve what a function answers to a path and a document: a document, with headers, or None for 404."""
    asked: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            document = json.loads(body) if body else None
            asked.append((self.path, document))
            found, headers = answer(self.path, document) or (None, {})
            self.send_response(404 if found is None else 200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{server.server_port}/", "a-token"), asked
        finally:
            server.shutdown()
            thread.join()


def decode(registry: Registry, task: str, version: int, outputs: str) -> list[Any]:
    """Return the recorded outputs of a version or of the base as predictions."""
    import numpy as np

    manifest = registry.resolve(task, version).manifest
    task_type: Any = TASK_TYPES[manifest.kind](InputForm.read(manifest.recipe))
    found: list[Any] = task_type.decode_outputs(np.asarray(getattr(manifest.probe, outputs)), manifest.labels)
    return found


def answer_as_lorry(registry: Registry, predictions: list[Any], *, task: str, version: int) -> Answers:
    adapter = registry.resolve(task, version).adapter_id

    def answer(path: str, _document: Any) -> Any:
        return {
            "/v2": ({"name": "lorry"}, {}),
            "/tasks": ({"tasks": [{"task": task}], "refused": {}}, {}),
            f"/v2/models/{task}/ready": ({"version": version}, {}),
            f"/tasks/{task}/predict": (predictions, {"Lorry-Adapter": adapter}),
        }.get(path)

    return answer


@pytest.mark.parametrize(("task", "version"), [(TASK, 2), (TASK, 3), (NUMBERS, 1)])
def test_recorded_answers_are_recognised(registry: Registry, task: str, version: int) -> None:
    predictions = decode(registry, task, version, "outputs")
    with serve(answer_as_lorry(registry, predictions, task=task, version=version)) as (server, asked):
        (checked,) = check_server(registry, server, [])
    assert checked.error is None
    assert checked.version == version
    assert checked.difference == pytest.approx(0.0, abs=1e-6)
    rows = [dict(row) for row in registry.resolve(task, version).manifest.probe.rows]
    assert asked[-1] == (f"/tasks/{task}/predict", {"inputs": rows})


@pytest.mark.parametrize(
    ("version", "outputs", "said"),
    [(2, "base_outputs", "the adapter is ignored"), (3, "outputs", "differ by")],
)
def test_other_answers_are_refused(registry: Registry, version: int, outputs: str, said: str) -> None:
    predictions = decode(registry, TASK, version, outputs)
    with serve(answer_as_lorry(registry, predictions, task=TASK, version=2)) as (server, _asked):
        (checked,) = check_server(registry, server, [TASK])
    assert said in str(checked.error)


def answer_as_vllm(registry: Registry, version: int, outputs: str, *, loaded: bool) -> Answers:
    manifest = registry.resolve(TASK, version).manifest
    # Two more outputs than this head: other adapters of the batch have larger ones.
    shares = [
        [*(share * 0.9 for share in prediction["scores"].values()), 0.05, 0.05]
        for prediction in decode(registry, TASK, version, outputs)
    ]
    data = [{"index": index, "label": "LABEL_0", "probs": row} for index, row in enumerate(shares)]
    assert manifest.labels is not None
    return lambda path, _document: {
        "/v1/models": ({"data": [{"id": "base"}, *([{"id": TASK}] if loaded else [])]}, {}),
        "/classify": ({"data": data[::-1]}, {}),
    }.get(path)


@pytest.mark.parametrize("loaded", [True, False])
def test_vllm_is_asked_by_the_name_that_it_knows(registry: Registry, loaded: bool) -> None:
    with serve(answer_as_vllm(registry, 2, "outputs", loaded=loaded)) as (server, asked):
        (checked,) = check_server(registry, server, [TASK])
    assert checked.error is None
    champion = registry.resolve(TASK)
    assert asked[-1][1]["model"] == (TASK if loaded else f"{TASK}@{champion.adapter_id}")
    assert asked[-1][1]["input"] == [row["text"] for row in champion.manifest.probe.rows]


def test_an_adapter_that_vllm_ignores_is_found(registry: Registry) -> None:
    with serve(answer_as_vllm(registry, 2, "base_outputs", loaded=True)) as (server, _asked):
        ignored, numbers = check_server(registry, server, [TASK, NUMBERS])
        assert "the adapter is ignored" in str(ignored.error)
        assert isinstance(numbers.error, UsageError)
        with pytest.raises(UsageError, match="name them"):
            check_server(registry, server, [])


@pytest.fixture
def causal_model(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the model of a task that writes text, as plain PEFT loads it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    monkeypatch.syspath_prepend(str(FROZEN))
    (base,) = FROZEN.glob("frozen_bases_*/gpt2")
    adapter = registry.fetch(registry.resolve(WRITING).adapter_id)
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()


def answer_as_vllm_writes(model: Any, asked: Any) -> Any:
    """Answer a request for completions with the probability of each token of its prompts."""
    import torch

    assert asked["echo"]
    assert (asked["max_tokens"], asked["logprobs"]) == (0, 0)
    choices = []
    for index, prompt in enumerate(asked["prompt"]):
        with torch.inference_mode():
            shares = model(input_ids=torch.tensor([prompt])).logits[0].log_softmax(-1)
        told = [None, *(shares[place, token].item() for place, token in enumerate(prompt[1:]))]
        choices.append({"index": index, "logprobs": {"token_logprobs": told}})
    return {"choices": choices[::-1]}


@pytest.mark.parametrize("is_ignored", [False, True])
def test_what_vllm_writes_is_compared_by_the_probabilities_of_first_tokens(
    registry: Registry, causal_model: Any, is_ignored: bool
) -> None:
    def answer(path: str, document: Any) -> Any:
        if path == "/v1/models":
            return {"data": [{"id": WRITING}]}, {}
        if path != "/v1/completions":
            return None
        with causal_model.disable_adapter() if is_ignored else contextlib.nullcontext():
            return answer_as_vllm_writes(causal_model, document), {}

    with serve(answer) as (server, _asked):
        (checked,) = check_server(registry, server, [WRITING])
    if is_ignored:
        assert "the adapter is ignored" in str(checked.error)
    else:
        assert checked.error is None
        assert checked.difference == pytest.approx(0.0, abs=1e-5)


def test_what_cannot_be_compared_is_no_fault(registry: Registry) -> None:
    def answer(path: str, _document: Any) -> Any:
        return {
            "/v2": ({"name": "lorry"}, {}),
            f"/v2/models/{QUESTIONS}/ready": ({"version": 1}, {}),
        }.get(path)

    with serve(answer) as (server, _asked):
        questions, nowhere = check_server(registry, server, [QUESTIONS, "nowhere"])
    assert questions == Checked(QUESTIONS, 1)
    assert "404" in str(nowhere.error)


def test_an_answer_of_another_form_is_said(registry: Registry) -> None:
    with serve(answer_as_lorry(registry, [{"label": "good"}], task=TASK, version=2)) as (server, _asked):
        (checked,) = check_server(registry, server, [TASK])
    assert "another form" in str(checked.error)


def test_a_server_that_is_away_is_said(registry: Registry) -> None:
    with serve(lambda _path, _document: None) as (server, _asked):
        pass
    with pytest.raises(StoreError, match="does not answer"):
        check_server(registry, server, [TASK])
    with pytest.raises(UsageError, match="not an address"):
        Server("file:///etc/passwd")
