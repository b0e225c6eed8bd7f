"""Heads that are fitted to the frozen base: as the beginning of a training, and as a method of its own."""

import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lorry_components.inference import assemble_adapter, load_adapter
from lorry_components.models.configuration import load_config
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.gate.step import Decision
from lorry_components.steps.prepare_data.step import load_part
from lorry_components.steps.register.step import register
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.probe.feature_cache import FeatureCache
from lorry_components.training.probe.frozen_features import FrozenFeatures
from lorry_components.training.probe.head_fitting import fit_classes, fit_numbers
from lorry_components.training.probe.linear_probe import BEGINNING, open_features
from lorry_components.training.setup.precision import PrecisionName
from lorry_registry.manifest import Pooling
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
TASKS = ("classification", "regression", "pair")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("base", ["bert", "gpt2"])
def test_a_probe_is_trained_judged_and_loaded(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path, task: str, base: str
) -> None:
    spec = make_spec(task, "probe", base=base)
    resolved, data = resolve_task(spec), tiny_data(task)
    summary = finetune(resolved, data, tmp_path / "candidate", checkpoints=tmp_path / "checkpoints")
    assert (summary.steps, summary.parameters.adapter) == (0, 0)
    assert summary.head is not None
    assert summary.head.place == ("first" if base == "bert" else "last")
    tensors = load_file(tmp_path / "candidate/adapter/adapter_model.safetensors")
    assert sorted(tensors) == ["score.bias", "score.weight"]
    report = evaluate(resolved, data, tmp_path / "candidate", tmp_path / "evaluation", registry=None)
    assert report.evaluation.linear_probe is None


@pytest.mark.parametrize("task", TASKS)
def test_a_training_begins_with_the_probe(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path, task: str
) -> None:
    data = tiny_data(task)
    outputs: list[Any] = []
    rows = [example.row for example in load_part(data, "test")]
    settings = {"head": {"pooling": "mean", "init": "probe"}, "train": {"steps": 1, "learning_rate": 1e-9}}
    for name, method, further in (
        ("probe", "probe", {"head": {"pooling": "mean"}}),
        ("lora", "lora", settings),
        ("again", "lora", settings),
    ):
        spec = make_spec(task, method, **{**further, "train": {**further.get("train", {}), "epochs": None}})
        resolved = resolve_task(spec)
        cache = FeatureCache(tmp_path / "features")
        summary = finetune(
            resolved, data, tmp_path / name, checkpoints=tmp_path / f"{name}-checkpoints", features=cache
        )
        predictor = assemble_adapter(
            tmp_path / name / "adapter",
            base=resolved.base,
            task_type=resolved.task_type.hold_pooling(summary.head),
            method=resolved.build_method(),
            labels=summary.labels,
        )
        outputs.append(predictor.compute_outputs(rows))
    # It is less sure of classes than the probe; a number is a number.
    share = 1.0 if task == "regression" else BEGINNING
    np.testing.assert_allclose(outputs[1], outputs[0] * share, atol=1e-4)
    assert np.array_equal(outputs[1], outputs[2])


def test_numbers_for_few_rows_begin_with_a_fitted_head_where_the_task_leaves_it_open(
    make_spec: MakeSpec,
    make_base: Callable[..., Path],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, data = make_base(), tiny_data("regression")
    (folder / "modules.json").write_text('[{"type": "x.Pooling", "path": "1_Pooling"}]', "utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}', "utf-8")
    rows = len(load_part(data, "train"))
    resolved = resolve_task(make_spec("regression", "lora", base=f"{folder}/"))
    heads = {}
    for name, few in (("few", rows + 1), ("many", rows)):
        monkeypatch.setattr("lorry_components.task_types.sequence_head.FEW_ROWS", few)
        candidate = tmp_path / name
        heads[name] = finetune(resolved, data, candidate, checkpoints=tmp_path / f"{name}-checkpoints").head
        # What the training chose is what the evaluation loads.
        evaluate(resolved, data, candidate, tmp_path / f"{name}-evaluation", registry=None)
    assert heads == {"few": Pooling(place="mean"), "many": None}


@pytest.mark.parametrize(
    ("method", "head", "base"),
    [
        ("lora", {"pooling": "mean", "init": "probe"}, "bert"),
        ({"name": "lora", "r": 2}, {"pooling": "last", "init": "probe"}, "gpt2"),
        ({"name": "lora", "r": 2, "targets": "all-linear"}, {"pooling": "first"}, "roberta"),
        ({"name": "ft-top", "layers": 1}, {"pooling": "mean"}, "distilbert"),
        ("probe", None, "bert"),
        ({"name": "lora", "r": 2}, None, "gpt2"),
        ("lora", None, "bert"),
    ],
)
def test_the_lines_of_a_card_compute_the_same_logits(
    make_spec: MakeSpec,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    method: str | dict[str, Any],
    head: dict[str, str] | None,
    base: str,
) -> None:
    sections: dict[str, Any] = {} if head is None else {"head": head}
    if method == "probe":
        sections["train"] = {"epochs": None}
    spec = make_spec("classification", method, base=base, **sections)
    folder = train_and_register(spec, tiny_data("classification"), tmp_path)
    card = (folder / "README.md").read_text("utf-8")
    code = read_python(card)
    check_code(code, folder, resolve_task(spec).base.folder)
    assert len(code.splitlines()) <= 32
    # A probe is not compared with itself.
    assert ("Linear probe on the frozen base" in card) == (method != "probe")


@pytest.mark.parametrize("head", [{"pooling": "mean"}, None])
def test_the_lines_of_a_card_read_pairs(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path, head: dict[str, str] | None
) -> None:
    sections: dict[str, Any] = {} if head is None else {"head": head}
    spec = make_spec("pair", {"name": "lora", "r": 2}, **sections)
    folder = train_and_register(spec, tiny_data("pair"), tmp_path)
    code = read_python((folder / "README.md").read_text("utf-8"))
    check_code(code, folder, resolve_task(spec).base.folder, pairs=["a film", "it was great " * 100, "weak"])


def test_the_page_about_peft_shows_the_lines_of_a_default_classification(
    make_spec: MakeSpec,
    make_base: Callable[..., Path],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    base = make_base()
    (base / "modules.json").write_text(
        '[{"type": "x.Pooling", "path": "1_Pooling"}, {"type": "x.Normalize", "path": "2_Normalize"}]',
        "utf-8",
    )
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}', "utf-8")
    spec = make_spec("classification", "lora", base=f"{base}/", head={}, data={"max_length": 48})
    folder = train_and_register(spec, tiny_data("classification"), tmp_path)
    code = read_python((folder / "README.md").read_text("utf-8"))
    page = (Path(__file__).parents[5] / "docs/peft.md").read_text("utf-8")
    shown = read_python(page).replace("384, 2)", f"{load_config(base).hidden_size}, 3)").replace("128", "48")
    assert code in shown
    check_code(shown.partition("\n\n")[2], folder, base)


def train_and_register(spec: TaskSpec, data: Path, scratch: Path) -> Path:
    """Return the folder of the adapter that a task becomes."""
    resolved = resolve_task(spec)
    finetune(resolved, data, scratch / "candidate", checkpoints=scratch / "checkpoints")
    report = evaluate(resolved, data, scratch / "candidate", scratch / "evaluation", registry=None)
    registry = Registry(LocalStore(scratch / "store"), scratch / "cache")
    registration = register(
        resolved,
        scratch / "candidate",
        report,
        Decision(passed=True, reasons=(), judged_champion=None),
        registry=registry,
        index=None,
        details={},
    )
    return registry.fetch(registration.event.adapter_id)


def read_python(page: str) -> str:
    return page.partition("```python\n")[2].partition("```")[0]


def check_code(code: str, folder: Path, base: Path, pairs: list[str] | None = None) -> None:
    """Check that code computes the logits of Lorry itself, of a text that is cut too."""
    texts = ["the film was great", "a story so dull and very weak it is", "a film so very dull " * 200]
    names: dict[str, Any] = {"base": str(base), "folder": str(folder), "texts": texts, "pairs": pairs}
    with warnings.catch_warnings():
        # The base has another name on every machine.
        warnings.simplefilter("ignore")
        exec(code, names)  # noqa: S102 - what a reader of the card would do
    rows = [{"text": text} for text in texts]
    if pairs is not None:
        rows = [{**row, "text_pair": pair} for row, pair in zip(rows, pairs, strict=True)]
    expected = load_adapter(folder).predictor.compute_outputs(rows)
    np.testing.assert_allclose(names["logits"].numpy(), expected, rtol=2e-4, atol=2e-5)


def test_a_probe_is_fitted_in_the_precision_of_the_training(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """Features of different precisions are nearly the same, and kept apart."""
    data, cache = tiny_data("classification"), FeatureCache(tmp_path / "features")
    rows = [example.row for example in load_part(data, "train")]
    features: list[Any] = []
    weights: list[torch.Tensor] = []
    precisions: tuple[PrecisionName, PrecisionName] = ("fp32", "bf16")
    for precision in precisions:
        train = {"epochs": None, "precision": precision}
        task = resolve_task(make_spec("classification", "probe", train=train))
        target = tmp_path / precision
        summary = finetune(task, data, target, checkpoints=tmp_path / "checkpoints", features=cache)
        assert summary.precision == precision
        weights.append(load_file(target / "adapter/adapter_model.safetensors")["score.weight"])
        settled = task.task_type.settle(task.base.folder)
        opened = open_features(task.base, settled, task.build_method(), cache, precision=precision)
        assert opened is not None
        features.append(np.array(opened.compute(rows)))
    assert not torch.equal(*weights)
    error = np.linalg.norm(features[1] - features[0], axis=1) / np.linalg.norm(features[0], axis=1)
    assert 0 < error.max() < 0.03


def test_an_adapter_is_compared_with_the_probe_that_its_training_fitted(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """The comparison is about the very numbers that the method ``probe`` reaches on the same rows."""
    data = tiny_data("classification")
    resolved = resolve_task(make_spec("classification", "lora"))
    finetune(resolved, data, tmp_path / "lora", checkpoints=tmp_path / "checkpoints")
    report = evaluate(resolved, data, tmp_path / "lora", tmp_path / "evaluation", registry=None)
    alone = resolve_task(make_spec("classification", "probe", train={"epochs": None}))
    finetune(alone, data, tmp_path / "probe", checkpoints=tmp_path / "checkpoints")
    judged = evaluate(alone, data, tmp_path / "probe", tmp_path / "judged", registry=None)
    probe = report.evaluation.linear_probe
    assert probe is not None
    assert probe.value == judged.evaluation.headline.value
    assert probe.gain == pytest.approx(report.evaluation.headline.value - probe.value)
    assert probe.low <= probe.gain <= probe.high


@pytest.mark.parametrize(("settings", "is_compared"), [("auto", True), ("always", True), ("never", False)])
def test_the_comparison_can_be_left_out(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path, settings: str, is_compared: bool
) -> None:
    spec = make_spec("regression", "lora", evaluate={"linear_probe": settings}, train={"epochs": 1})
    resolved, data = resolve_task(spec), tiny_data("regression")
    finetune(resolved, data, tmp_path / "candidate", checkpoints=tmp_path / "checkpoints")
    report = evaluate(resolved, data, tmp_path / "candidate", tmp_path / "evaluation", registry=None)
    assert (report.evaluation.linear_probe is not None) == is_compared


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_training_that_goes_on_ends_as_if_it_had_never_stopped(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path, task: str
) -> None:
    spec = make_spec(task, head={"pooling": "mean", "init": "probe"}, train={"epochs": None, "steps": 4})
    resolved, data = resolve_task(spec), tiny_data(task)
    finetune(resolved, data, tmp_path / "whole", checkpoints=tmp_path / "kept")
    shutil.copytree(tmp_path / "kept/checkpoint-3", tmp_path / "cut/checkpoint-3")
    summary = finetune(resolved, data, tmp_path / "resumed", checkpoints=tmp_path / "cut")
    assert summary.resumed_from == 3
    whole, resumed = (
        (tmp_path / name / "adapter/adapter_model.safetensors").read_bytes() for name in ("whole", "resumed")
    )
    assert whole == resumed


@pytest.mark.parametrize("task", ["pair", "regression"])
@pytest.mark.parametrize(
    ("base", "method"),
    [
        ("bert", "prompt-tuning"),
        ("bert", {"name": "p-tuning", "template": "[P] {text} [P]"}),
        ("bert", "p-tuning-v2"),
        ("bert", "prelayer"),
        ("gpt2", "prompt-tuning"),
        ("bert", {"name": "peft", "type": "MISS", "r": 2}),
    ],
)
def test_the_head_of_soft_prompts_is_fitted_to_the_base_with_them(
    make_spec: MakeSpec,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    task: str,
    base: str,
    method: str | dict[str, Any],
) -> None:
    if isinstance(method, dict) and task == "pair" and "template" in method:
        method = {**method, "template": "[P] {text} [P] {text_pair}"}
    head = {"pooling": "last" if base == "gpt2" else "mean", "init": "probe"}
    train = {"epochs": None, "steps": 1, "learning_rate": 1e-9, "precision": "fp32"}
    spec = make_spec(task, method, base=base, head=head, train=train)
    resolved, data = resolve_task(spec), tiny_data(task)
    summary = finetune(resolved, data, tmp_path / "soft", checkpoints=tmp_path / "checkpoints")
    predictor = assemble_adapter(
        tmp_path / "soft/adapter",
        base=resolved.base,
        task_type=resolved.task_type.hold_pooling(summary.head),
        method=resolved.build_method(),
        labels=summary.labels,
    )
    read: list[Any] = []
    layer: Any = next(
        module
        for name, module in predictor.adapted.model.named_modules()
        if name.endswith("score") or name.endswith("score.modules_to_save.default")
        if isinstance(module, torch.nn.Linear)
    )
    layer.register_forward_pre_hook(lambda _layer, inputs: read.append(inputs[0].float().numpy()))
    features, truth = {}, {}
    for part in ("train", "validation"):
        examples = load_part(data, part)
        for example in examples:
            predictor.compute_outputs([example.row])
        features[part], truth[part] = (
            np.concatenate(read),
            [resolved.task_type.encode_label(example.label, summary.labels) for example in examples],
        )
        read.clear()
    inputs = features["train"], truth["train"], features["validation"], truth["validation"]
    fitted = (
        fit_numbers(*inputs)
        if summary.labels is None
        else fit_classes(*inputs[:2], len(summary.labels), *inputs[2:])
    )
    rows = [example.row for example in load_part(data, "test")]
    outputs = np.concatenate([predictor.compute_outputs([row]) for row in rows])
    share = BEGINNING if task == "pair" else 1.0
    np.testing.assert_allclose(outputs, fitted.compute(np.concatenate(read)) * share, atol=2e-3)


@pytest.fixture
def _any_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up every training: what comes of it does not depend on how bad a tiny model becomes."""
    monkeypatch.setattr("lorry_components.training.probe.probe_fallback._CHANCE", 1.0)


# At such a rate the weights are thrown about.
RUINED = {"epochs": None, "steps": 4, "learning_rate": 0.5}
TORN = {"pooling": "mean", "init": "probe", "learning_rate": 0.5}


@pytest.mark.usefixtures("_any_end_is_given_up")
@pytest.mark.parametrize(
    ("task", "method"),
    [("classification", "lora"), ("regression", "lora"), ("regression", "bitfit"), ("regression", "full")],
)
@pytest.mark.parametrize("stopping", [None, {"patience": 5}])
def test_a_training_that_is_given_up_keeps_its_beginning(
    make_spec: MakeSpec,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    task: str,
    method: str,
    stopping: dict[str, int] | None,
) -> None:
    train = RUINED | ({"early_stopping": stopping} if stopping else {})
    resolved, data = resolve_task(make_spec(task, method, head=TORN, train=train)), tiny_data(task)
    curve: list[tuple[int, float]] = []

    def follow(metrics: Mapping[str, float], step: int) -> None:
        name = f"validation/{resolved.task_type.primary}"
        curve.extend([(step, metrics[name])] if name in metrics else [])

    summary = finetune(resolved, data, tmp_path / "ruined", checkpoints=tmp_path / "kept", log_metrics=follow)
    # What is told last, of the last step, is of the weights that were kept.
    (first, begun), *_, (last, kept) = curve
    assert (first, last) == (0, summary.steps)
    assert kept == pytest.approx(begun, abs=1e-3)
    assert f"{begun:.3f} when training began" in summary.kept_start
    alone = resolve_task(make_spec(task, "probe", head={"pooling": "mean"}, train={"epochs": None}))
    finetune(alone, data, tmp_path / "probe", checkpoints=tmp_path / "none")
    rows = [example.row for example in load_part(data, "test")]
    outputs = [
        assemble_adapter(
            tmp_path / name / "adapter",
            base=each.base,
            task_type=each.task_type.hold_pooling(summary.head),
            method=each.build_method(),
            labels=summary.labels,
        ).compute_outputs(rows)
        for name, each in (("ruined", resolved), ("probe", alone))
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-4)
    # It is an adapter like any other: its head is not the base's.
    evaluate(resolved, data, tmp_path / "ruined", tmp_path / "evaluation", registry=None)


@pytest.mark.usefixtures("_any_end_is_given_up")
@pytest.mark.parametrize("method", ["vera", {"name": "peft", "type": "MISS", "r": 2}])
def test_a_beginning_that_is_kept_is_told_from_the_base_by_its_head(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path, method: str | dict[str, Any]
) -> None:
    resolved = resolve_task(make_spec("classification", method, head=TORN, train=RUINED))
    data = tiny_data("classification")
    summary = finetune(resolved, data, tmp_path / "ruined", checkpoints=tmp_path / "kept")
    assert "when training began" in summary.kept_start
    report = evaluate(resolved, data, tmp_path / "ruined", tmp_path / "evaluation", registry=None)
    assert report.probe is not None
    assert not np.any(report.probe.base_outputs)


@pytest.mark.usefixtures("_any_end_is_given_up")
@pytest.mark.parametrize("step", [3, 4])
def test_a_beginning_is_kept_after_a_kill_as_well(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path, step: int
) -> None:
    """The last checkpoint is written before its weights are evaluated."""
    spec = make_spec("classification", head=TORN, train=RUINED)
    resolved, data = resolve_task(spec), tiny_data("classification")
    finetune(resolved, data, tmp_path / "whole", checkpoints=tmp_path / "kept")
    shutil.copytree(tmp_path / f"kept/checkpoint-{step}", tmp_path / f"cut/checkpoint-{step}")
    summary = finetune(resolved, data, tmp_path / "resumed", checkpoints=tmp_path / "cut")
    assert summary.resumed_from == step
    assert "when training began" in summary.kept_start
    whole, resumed = (
        (tmp_path / name / "adapter/adapter_model.safetensors").read_bytes() for name in ("whole", "resumed")
    )
    assert whole == resumed


def test_a_training_that_ends_no_worse_is_kept(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """A head that begins at random has nothing to go back to either."""
    for head in ({"init": "probe"}, {"init": "random"}):
        train = {"epochs": None, "steps": 4, "learning_rate": 1e-9}
        resolved = resolve_task(make_spec("classification", head=head, train=train))
        data = tiny_data("classification")
        name = head["init"]
        summary = finetune(resolved, data, tmp_path / name, checkpoints=tmp_path / f"{name}-kept")
        assert summary.kept_start == ""


def test_a_probe_that_cannot_be_fitted_costs_no_training(
    make_spec: MakeSpec,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AttributeError("'Outputs' has no attribute 'last_hidden_state'")

    monkeypatch.setattr(FrozenFeatures, "compute", fail)
    resolved, data = resolve_task(make_spec("classification", "lora")), tiny_data("classification")
    finetune(resolved, data, tmp_path / "candidate", checkpoints=tmp_path / "checkpoints")
    assert "is not compared with a linear probe: 'Outputs' has no" in caplog.text
    report = evaluate(resolved, data, tmp_path / "candidate", tmp_path / "evaluation", registry=None)
    assert report.evaluation.linear_probe is None
    # A head that is to begin as the probe cannot do without it.
    wanted = resolve_task(make_spec("classification", "lora", head={"init": "probe"}))
    with pytest.raises(AttributeError, match="last_hidden_state"):
        finetune(wanted, data, tmp_path / "other", checkpoints=tmp_path / "others")
