"""The how-tos of CONTRIBUTING.md, each followed with a toy: what it adds works like what is there."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lorry_components.data.examples import collect_examples
from lorry_components.data.faults import FaultLog
from lorry_components.data.layout import TABLE
from lorry_components.data.object_cache import ObjectCache
from lorry_components.data.reading import SOURCES, Reading, RemoteSource
from lorry_components.data.rows import DataForm, Label, LabelReader
from lorry_components.inference import load_adapter
from lorry_components.methods import METHODS
from lorry_components.methods.base import MethodOptions
from lorry_components.methods.native.own_weights import OwnWeightsMethod
from lorry_components.metrics.base import Prediction, Scorer, Target
from lorry_components.steps.evaluate.evaluation_report import EvaluationReport
from lorry_components.steps.evaluate.step import evaluate, score_predictions
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.gate.step import Decision
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.steps.register.step import register
from lorry_components.task_types import TASK_TYPES, TextClassification
from lorry_components.task_types.base import Outputs
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_components.tasks.definition import load_task_file
from lorry_components.tasks.resolution import ResolvedTask, resolve_task
from lorry_components.tasks.staleness import assess_staleness
from lorry_components.training.training_summary import ADAPTER_FOLDER, TrainingSummary
from lorry_registry.adapters.verification import read_tensor_entries
from lorry_registry.errors import ConflictError, InvalidTaskError, StoreError
from lorry_registry.files.digests import digest_document
from lorry_registry.manifest import WEIGHTS_NAME
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings
from lorry_registry.stores import open_store
from lorry_registry.stores.opening import OPENERS
from lorry_registry.tasks import input_specs
from lorry_registry.tasks.input_specs import DataSpec, SeededSplit
from lorry_registry.tasks.task_spec import TaskSpec

from fixtures.memory_store import MemoryStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import nn

PASSED = Decision(passed=True, reasons=("a toy",), judged_champion=None)


@dataclass(frozen=True)
class Trained:
    """A task that went through the steps up to evaluation."""

    task: ResolvedTask
    candidate: Path
    summary: TrainingSummary
    report: EvaluationReport


@pytest.fixture
def make_spec(tmp_path: Path, tiny_bert: Path, tiny_rows: Path) -> Callable[..., TaskSpec]:
    """Return a function that writes a task file and checks it; sections that are given are laid over it."""
    import yaml

    def make(*, kind: str = "text-classification", **sections: Any) -> TaskSpec:
        document: dict[str, Any] = {
            "name": "toy",
            "kind": kind,
            "base": {"model": str(tiny_bert)},
            "data": {"source": str(tiny_rows), "split": {"validation": 0.2, "test": 0.2}, "max_length": 32},
            "method": {"name": "lora", "r": 2, "targets": ["query", "value"]},
            "train": {"steps": 2, "batch_size": 16, "precision": "fp32"},
            "evaluate": {"resamples": 100},
        }
        for name, given in sections.items():
            document[name] = given if name == "method" else document[name] | given
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump(document), "utf-8")
        return load_task_file(path)

    return make


@pytest.fixture
def train(tmp_path: Path) -> Callable[[TaskSpec], Trained]:
    """Return a function that prepares the data of a task, trains it and evaluates it."""

    def run(spec: TaskSpec) -> Trained:
        data, candidate = tmp_path / "data", tmp_path / "candidate"
        task = resolve_task(spec)
        prepare_data(task, data)
        summary = finetune(task, data, candidate, checkpoints=tmp_path / "checkpoints")
        report = evaluate(task, data, candidate, tmp_path / "evaluation", registry=None)
        return Trained(task, candidate, summary, report)

    return run


# A task type


class StarRating(SequenceHeadTaskType):
    """One to five stars for a text."""

    name = "star-rating"
    summary = "one to five stars for a text"
    primary = "within_one"
    data_form = DataForm("number")

    @staticmethod
    def score_within_one(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
        """Share of rows whose stars are right or next to right."""
        stars = [guess["stars"] for guess in predictions]
        near = np.abs(np.asarray(targets, dtype=float) - np.asarray(stars)) <= 1
        return lambda draw: float(np.mean(near[draw]))

    metrics = {"within_one": score_within_one.__func__}  # type: ignore[attr-defined]

    def parse_label(self, raw: object) -> Label:
        """Accept one to five stars."""
        if not isinstance(raw, str) or raw.strip("*") or not 1 <= len(raw) <= 5:
            raise ValueError(f"{raw!r} is not one to five stars")
        return float(len(raw))

    def encode_label(self, label: Label, labels: Sequence[str] | None) -> float:
        """Return the number of stars."""
        return float(label)

    def decode_outputs(self, outputs: Outputs, labels: Sequence[str] | None) -> list[Prediction]:
        """Return ``{"stars": n}`` a row."""
        return [{"stars": int(np.clip(round(float(value)), 1, 5))} for value in outputs[:, 0]]

    def describe_prediction(self, prediction: Prediction) -> str:
        """Return the stars."""
        return "*" * prediction["stars"]

    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> None:
        """Draw predicted against true stars."""
        axes.scatter(np.asarray(targets, dtype=float), [guess["stars"] for guess in predictions])


def write_stars(path: Path) -> Path:
    words = ("bad", "dull", "film", "good", "lovely")
    rows = [
        f'{{"text": "{words[row % 5]} film {row}", "label": "{"*" * (row % 5 + 1)}"}}' for row in range(60)
    ]
    path.write_text("\n".join(rows), "utf-8")
    return path


def test_a_task_type(
    make_spec: Callable[..., TaskSpec],
    train: Callable[[TaskSpec], Trained],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = str(write_stars(tmp_path / "stars.jsonl"))
    with pytest.raises(InvalidTaskError, match="star-rating"):
        make_spec(kind="star-rating", data={"source": source})
    monkeypatch.setitem(TASK_TYPES, StarRating.name, StarRating)  # type: ignore[arg-type]
    with pytest.raises(InvalidTaskError, match="star-rating has no metric 'accuracy'"):
        make_spec(kind="star-rating", data={"source": source}, evaluate={"metrics": ["accuracy"]})
    trained = train(make_spec(kind="star-rating", data={"source": source}))
    evaluation = trained.report.evaluation
    assert (evaluation.primary, evaluation.examples) == ("within_one", 13)
    assert 0 <= evaluation.headline.low <= evaluation.headline.value <= evaluation.headline.high <= 1
    task_type = trained.task.task_type
    assert task_type.describe_prediction({"stars": 3}) == "***"
    with pytest.raises(ValueError, match="'good' is not one to five stars"):
        task_type.parse_label("good")


# A method


class LayerNormTuning(OwnWeightsMethod):
    """Every layer norm of the base is trained."""

    name = "layer-norm"
    summary = "every layer norm of the base"
    learning_rate = 1e-2
    max_adapter_mib = 1.0
    freezes_base = False
    options_model = MethodOptions

    def choose_parameters(self, model: "nn.Module") -> set[str]:
        """Choose the layer norms by their names."""
        return {name for name, _ in model.named_parameters() if "LayerNorm" in name}


def test_a_method(
    make_spec: Callable[..., TaskSpec],
    train: Callable[[TaskSpec], Trained],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InvalidTaskError, match="there is no method 'layer-norm'"):
        make_spec(method={"name": "layer-norm"})
    monkeypatch.setitem(METHODS, LayerNormTuning.name, LayerNormTuning)  # type: ignore[arg-type]
    with pytest.raises(InvalidTaskError, match="layer-norm has no option 'r'"):
        make_spec(method={"name": "layer-norm", "r": 4})
    trained = train(make_spec(method={"name": "layer-norm"}))
    # Five norms of a weight and a bias, 32 wide: the embeddings', and two in each of two blocks.
    assert trained.summary.parameters.adapter == 5 * 2 * 32
    saved = read_tensor_entries(trained.candidate / ADAPTER_FOLDER / WEIGHTS_NAME)
    assert {name.split(".")[-2] for name in saved} == {"LayerNorm", "classifier"}
    # The evaluation loaded it as everybody does: it acts, and a registered copy predicts the same again.
    assert trained.report.probe.outputs != trained.report.probe.base_outputs
    registry = Registry(open_store(str(tmp_path / "store")), tmp_path / "cache")
    event = register(
        trained.task, trained.candidate, trained.report, PASSED, registry=registry, index=None, details={}
    ).event
    loaded = load_adapter(registry.fetch(event.adapter_id), expected_id=event.adapter_id)
    assert loaded.predictor.predict([{"text": "a lovely film"}])[0]["label"] in ("yes", "no", "maybe")


# A metric


def score_yes_recall(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Share of the rows of class yes that are predicted as such; 0 where there are none."""
    is_yes = np.asarray([target == "yes" for target in targets])
    is_right = is_yes & np.asarray([guess["label"] == "yes" for guess in predictions])
    return lambda draw: float(is_right[draw].sum() / max(1, is_yes[draw].sum()))


def test_a_metric(make_spec: Callable[..., TaskSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"metrics": ["yes_recall", "accuracy"], "primary": "yes_recall"}
    with pytest.raises(InvalidTaskError, match="text-classification has no metric 'yes_recall'"):
        make_spec(evaluate=asked)
    monkeypatch.setattr(
        TextClassification, "metrics", {**TextClassification.metrics, "yes_recall": score_yes_recall}
    )
    spec = make_spec(evaluate=asked)
    targets: list[Target] = ["yes", "yes", "no", "no"]
    predictions: list[Prediction] = [
        {"label": label, "scores": {"yes": 0.5, "no": 0.5}} for label in ("yes", "no", "no", "yes")
    ]
    evaluation = score_predictions(spec, resolve_task(spec).task_type, targets, predictions, part="test")
    assert evaluation.primary == "yes_recall"
    assert {name: metric.value for name, metric in evaluation.metrics.items()} == {
        "yes_recall": 0.5,
        "accuracy": 0.5,
    }
    assert evaluation.headline.low < evaluation.headline.value < evaluation.headline.high


# A store


def test_a_store(
    make_spec: Callable[..., TaskSpec],
    train: Callable[[TaskSpec], Trained],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(StoreError, match="no store serves addresses of the form memory://"):
        open_store("memory://shelf")
    shelf = MemoryStore("memory://shelf")
    monkeypatch.setitem(OPENERS, "memory", lambda _address, _options: shelf)  # type: ignore[arg-type]
    registry = Registry.open(Settings.load({"LORRY_STORE": "memory://shelf"}, tmp_path))
    assert registry.store is shelf

    trained = train(make_spec())
    registration = register(
        trained.task, trained.candidate, trained.report, PASSED, registry=registry, index=None, details={}
    )
    adapter_id = registration.event.adapter_id
    assert [entry.task for entry in registry.list_tasks()] == ["toy"]
    assert not assess_staleness(trained.task, registry).is_stale
    resolution = registry.resolve("toy")
    assert (resolution.version, resolution.path) == (1, None)
    assert resolution.uri.startswith("memory://shelf/adapters/")
    load_adapter(registry.fetch(adapter_id), expected_id=adapter_id)
    assert [error for _, error in registry.verify_task("toy")] == [None]
    # Of two that read the same state one moves it.
    state = registry.ledger.read_state("toy")
    move: dict[str, Any] = {"action": "promote", "adapter_id": adapter_id, "version": 1, "promote": True}
    registry.ledger.append(state, **move, by="first", reasons=())
    with pytest.raises(ConflictError):
        registry.ledger.append(state, **move, by="second", reasons=())
    assert [event.by for event in registry.ledger.read_history("toy")][1:] == ["first"]
    # A damaged file is noticed.
    shelf.content[f"adapters/{adapter_id.removeprefix('sha256:')}/{WEIGHTS_NAME}"] = b"other"
    assert [error is not None for _, error in registry.verify_task("toy")] == [True]


# A data source


def read_countdown(data: DataSpec, reader: LabelReader, _: ObjectCache | None) -> Reading:
    """Read the rows of ``countdown:N``: the numbers below N, and whether they are even."""
    log = FaultLog(data.source)
    numbers = range(int(data.source.removeprefix("countdown:")))
    records = (
        (number + 1, {"text": f"film {number}", "label": "no" if number % 2 else "yes"}) for number in numbers
    )
    examples = collect_examples(records, "numbers", data.columns, reader, log)
    log.raise_if_any()
    return Reading({TABLE: examples}, data.split or SeededSplit())


def digest_countdown(data: DataSpec, _: LabelReader | None) -> str:
    """Return a digest of the address, which says all of its rows."""
    return digest_document({"countdown": data.source})


def test_a_data_source(
    make_spec: Callable[..., TaskSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_spec(data={"source": "countdown:40"}).data.is_local
    monkeypatch.setitem(SOURCES, "countdown:", RemoteSource(read_countdown, digest_countdown))  # type: ignore[arg-type]
    monkeypatch.setattr(input_specs, "REMOTE_PREFIXES", (*input_specs.REMOTE_PREFIXES, "countdown:"))
    spec = make_spec(data={"source": "countdown:40"})
    assert not spec.data.is_local
    assert spec.data.source == "countdown:40"
    first = prepare_data(resolve_task(spec), tmp_path / "first")
    assert sum(part.rows for part in first.splits.values()) == 40
    assert first.labels == ("no", "yes")
    shutil.rmtree(tmp_path / "first")
    more = prepare_data(resolve_task(make_spec(data={"source": "countdown:41"})), tmp_path / "more")
    assert more.source_digest != first.source_digest


def test_each_prefix_of_remote_sources_has_a_reader() -> None:
    assert set(SOURCES) == set(input_specs.REMOTE_PREFIXES)
