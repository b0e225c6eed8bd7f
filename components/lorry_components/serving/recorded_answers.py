"""A comparison of a server's answers with those recorded beside the registered adapters.

It asks ``lorry serve``, and the routes of vLLM. An adapter that a server ignores without a word gives the
outputs of the base, which were recorded as well.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Any

import numpy as np

from lorry_components.inference.recorded_outputs import LARGEST_TOLERANCE, LEAST_EFFECT, measure_distances
from lorry_components.models.bases import Base
from lorry_components.models.dimensions import read_dimensions
from lorry_components.task_types import TASK_TYPES, InputForm, Prediction
from lorry_components.task_types.base import Outputs
from lorry_components.task_types.generation.base import choose_probed_tokens
from lorry_components.task_types.generation.text_generation import TextGeneration
from lorry_components.task_types.input_form import fill_template
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_registry.errors import AdapterRejectedError, LorryError, StoreError, UsageError
from lorry_registry.manifest import Manifest
from lorry_registry.registry import Registry, Resolution
from lorry_registry.tasks.input_specs import BaseSpec

# vLLM computes in 16 bits by default.
_LARGEST_OF_16_BITS = 5e-2
_SECONDS = 60
# The version that was asked for, its answers or None if none can be compared, and how far they may be.
_Asked = tuple[Resolution, Outputs | None, float]


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of a task.

    Attributes:
        task: The task.
        version: The version that was compared with.
        difference: How far its answers are from the recorded ones; None: they were not compared, since what
            is recorded of its kind are no answers.
        error: What is wrong.
    """

    task: str
    version: int | None = None
    difference: float | None = None
    error: LorryError | None = None


class Server:
    """A server that is asked over HTTP.

    Args:
        url: Its address.
        token: What it asks for, or "".
    """

    def __init__(self, url: str, token: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError("is not an address", where=url, todo="give http://HOST:PORT")
        self.url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def ask(self, path: str, document: Any = None) -> tuple[Any, Message]:
        """Return an answer and its headers.

        Raises:
            StoreError: There is none, or it is no success.
        """
        address = self.url + path
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(address, body, self._headers)  # noqa: S310 - it is http
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                return json.loads(answer.read()), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(1000).decode("utf-8", "replace")
            raise StoreError(f"answers {error.code}: {said}", where=address, todo="see its log") from error
        except (OSError, ValueError) as error:
            raise StoreError(f"does not answer: {error}", where=address, todo="check the address") from error


def check_server(
    registry: Registry, server: Server, tasks: Sequence[str], *, find_base: Callable[[BaseSpec], Base]
) -> list[Checked]:
    """Compare the answers of a server with those recorded in a registry.

    Args:
        registry: Where the adapters were registered.
        server: The server.
        tasks: The tasks to ask for; none: all that ``lorry serve`` says it serves or refuses.
        find_base: Finds the base of a task that writes text, whose tokenizer its prompts are written with.

    Raises:
        StoreError: The server does not answer.
        UsageError: It is vLLM, and no task is named.
    """
    is_lorry = _is_lorry(server)
    if not tasks:
        if not is_lorry:
            raise UsageError("it does not tell its tasks", where=server.url, todo="name them")
        listed, _headers = server.ask("/tasks")
        tasks = sorted({entry["task"] for entry in listed["tasks"]} | set(listed["refused"]))

    def ask(task: str) -> _Asked:
        if is_lorry:
            return _ask_lorry(registry, server, task)
        return _ask_vllm(registry.resolve(task), server, find_base)

    return [_check_task(task, ask) for task in tasks]


def _is_lorry(server: Server) -> bool:
    try:
        described, _headers = server.ask("/v2")
    except StoreError as error:
        if isinstance(error.__cause__, urllib.error.HTTPError):
            return False
        raise
    return isinstance(described, dict) and described.get("name") == "lorry"


def _check_task(task: str, ask: Callable[[str], _Asked]) -> Checked:
    version = None
    try:
        found, answered, largest = ask(task)
        version = found.version
        if answered is None:
            return Checked(task, version)
        recorded, base = _read_recorded(found.manifest)
        return Checked(task, version, _compare(task, answered, recorded, base, largest))
    except LorryError as error:
        return Checked(task, version, error=error)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"its answer has another form: {type(error).__name__}: {error}"
        return Checked(task, version, error=AdapterRejectedError(problem, where=task, todo="see its log"))


def _ask_lorry(registry: Registry, server: Server, task: str) -> _Asked:
    described, _headers = server.ask(f"/v2/models/{task}/ready")
    found = registry.resolve(task, described["version"])
    if not issubclass(TASK_TYPES[found.manifest.kind], SequenceHeadTaskType):
        return found, None, LARGEST_TOLERANCE
    rows = [dict(row) for row in found.manifest.probe.rows]
    answer, headers = server.ask(f"/tasks/{task}/predict", {"inputs": rows})
    if headers["Lorry-Adapter"] != found.adapter_id:
        raise AdapterRejectedError(
            f"its v{found.version} is {headers['Lorry-Adapter']}, and the registry's is {found.adapter_id}",
            where=task,
            todo="does it serve another registry?",
        )
    return found, _list_numbers(answer, found.manifest.labels), LARGEST_TOLERANCE


def _ask_vllm(found: Resolution, server: Server, find_base: Callable[[BaseSpec], Base]) -> _Asked:
    manifest = found.manifest
    is_classifier = manifest.kind == "text-classification" and "text_pair" not in manifest.probe.rows[0]
    if not is_classifier and manifest.kind != TextGeneration.name:
        raise UsageError(
            "only generated texts and classes of single texts can be compared on vLLM",
            where=found.task,
            todo="leave it out",
        )
    models, _headers = server.ask("/v1/models")
    loaded = {entry["id"] for entry in models["data"]}
    name = found.task if found.task in loaded else f"{found.task}@{found.adapter_id}"
    if is_classifier:
        return found, _ask_classes(manifest, server, name), _LARGEST_OF_16_BITS
    spec = BaseSpec(model=manifest.base.model, revision=manifest.base.revision)
    return found, _ask_tokens(manifest, server, name, find_base(spec)), _LARGEST_OF_16_BITS


def _ask_classes(manifest: Manifest, server: Server, name: str) -> Outputs:
    template = InputForm.read(manifest.recipe).template
    texts = [row["text"] if template is None else fill_template(template, row) for row in manifest.probe.rows]
    answer, _headers = server.ask("/classify", {"model": name, "input": texts})
    entries = sorted(answer["data"], key=lambda entry: entry["index"])
    predictions = [_name_shares(entry["probs"], manifest.labels or ()) for entry in entries]
    return _list_numbers(predictions, manifest.labels)


def _ask_tokens(manifest: Manifest, server: Server, name: str, base: Base) -> Outputs:
    """Return what is comparable with the recorded logits of some tokens as each answer's first.

    A server tells the probability of no token but the likeliest, and of those of a prompt: each token is
    appended to the prompt, and the prompt's own probabilities are asked for.
    """
    dimensions = read_dimensions(json.loads((base.folder / "config.json").read_text("utf-8")))
    if dimensions is None:
        raise UsageError(
            "its configuration states no vocabulary", where=str(base.folder), todo="leave it out"
        )
    task_type = TextGeneration(InputForm.read(manifest.recipe))
    writer = task_type.build_writer(task_type.load_reader(base.folder))
    tokens = choose_probed_tokens(dimensions.vocabulary)
    logprobs = []
    for prompt in writer.encode_prompts(manifest.probe.rows):
        asked = {"model": name, "prompt": [[*prompt, token] for token in tokens], "echo": True}
        answer, _headers = server.ask("/v1/completions", {**asked, "max_tokens": 0, "logprobs": 0})
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        logprobs.append([choice["logprobs"]["token_logprobs"][len(prompt)] for choice in choices])
    return _center(logprobs)


def _center(logits: Sequence[Sequence[float]]) -> Outputs:
    """Return logits less their mean in each row: so they are equal to those of normalized probabilities."""
    values = np.asarray(logits, dtype=np.float32)
    centered: Outputs = values - values.mean(axis=1, keepdims=True)
    return centered


def _name_shares(shares: Sequence[float], labels: Sequence[str]) -> Prediction:
    # There may be more outputs than this head has: those beyond are no classes of the task.
    own = shares[: len(labels)]
    return {"scores": {label: share / sum(own) for label, share in zip(labels, own, strict=True)}}


def _read_recorded(manifest: Manifest) -> tuple[Outputs, Outputs]:
    """Return the recorded answers of the adapter, and of the base alone."""
    if manifest.kind == TextGeneration.name:
        return _center(manifest.probe.outputs), _center(manifest.probe.base_outputs)
    task_type = TASK_TYPES[manifest.kind](InputForm.read(manifest.recipe))
    assert isinstance(task_type, SequenceHeadTaskType)
    answers = [
        _list_numbers(task_type.decode_outputs(np.asarray(outputs), manifest.labels), manifest.labels)
        for outputs in (manifest.probe.outputs, manifest.probe.base_outputs)
    ]
    return answers[0], answers[1]


def _list_numbers(predictions: Iterable[Prediction], labels: Sequence[str] | None) -> Outputs:
    def read(prediction: Mapping[str, Any]) -> list[float]:
        if labels is None:
            return [prediction["value"]]
        return [prediction["scores"][label] for label in labels]

    return np.asarray([read(prediction) for prediction in predictions], dtype=np.float32)


def _compare(task: str, answered: Outputs, recorded: Outputs, base: Outputs, largest: float) -> float:
    """Return how far answers are from the recorded ones.

    Raises:
        AdapterRejectedError: Too far, or they cannot be compared.
    """
    effect = float(measure_distances(base, recorded).max())
    if effect < LEAST_EFFECT:
        raise AdapterRejectedError(
            "its recorded answers are those of the base: they show nothing",
            where=task,
            todo="compare a version that changes more",
        )
    tolerance = min(largest, effect / 2)
    if answered.shape != recorded.shape:
        raise AdapterRejectedError(
            f"it has answers of shape {answered.shape}, and {recorded.shape} is recorded",
            where=task,
            todo="it serves another task's head",
        )
    difference = float(measure_distances(answered, recorded).max())
    if difference <= tolerance:
        return difference
    if measure_distances(answered, base).max() <= tolerance:
        raise AdapterRejectedError(
            "its answers are those of the base: the adapter is ignored",
            where=task,
            todo="see how the server was started",
        )
    raise AdapterRejectedError(
        f"its answers differ by {difference:.2g} from those recorded; {tolerance:.2g} may be rounding",
        where=task,
        todo="it serves another adapter, or computes it otherwise",
    )
