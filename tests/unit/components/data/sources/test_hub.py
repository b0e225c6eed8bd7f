import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from lorry_components.data.reading import Reading, digest_source
from lorry_components.data.sources import hub as hub_source
from lorry_registry.errors import InvalidDataError, MissingExtraError
from lorry_registry.tasks.input_specs import DataSpec

datasets = pytest.importorskip("datasets")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB: dict[str, Any] = {"source": "hub:someone/reviews", "revision": COMMIT}
Read = Callable[..., Reading]
Fail = Callable[..., InvalidDataError]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], list[Any]]:
    """Let load_dataset give something, or raise it; return the list of calls."""

    def install(result: object) -> list[Any]:
        calls: list[Any] = []

        def load_dataset(*args: object, **options: object) -> object:
            calls.append((args, options))
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return calls

    return install


def make_dataset(columns: Mapping[str, list[Any]], names: list[str] | None = None) -> Any:
    dataset = datasets.Dataset.from_dict(dict(columns))
    return dataset if names is None else dataset.cast_column("label", datasets.ClassLabel(names=names))


def test_splits_and_class_names(read: Read, hub: Callable[[object], list[Any]]) -> None:
    part = make_dataset({"text": ["a", "b"], "label": [0, 1], "id": [7, 8]}, ["negative", "positive"])
    calls = hub(datasets.DatasetDict(train=part, validation=part, test=part, unsupervised=part))
    reading = read(**HUB)
    assert calls == [(("someone/reviews",), {"revision": COMMIT})]
    assert set(reading.parts) == {"train", "validation", "test"}
    assert [example.label for example in reading.parts["train"]] == ["negative", "positive"]


def test_one_split_is_divided(read: Read, hub: Callable[[object], list[Any]]) -> None:
    hub(make_dataset({"text": ["a"], "label": [1.5]}))
    reading = read(kind="regression", **HUB)
    assert reading.split is not None
    assert reading.parts["table"][0].label == 1.5


def test_named_splits(read: Read, fail: Fail, hub: Callable[[object], list[Any]]) -> None:
    part = make_dataset({"text": ["a"], "label": ["x"]})
    hub(datasets.DatasetDict(train=part, dev=part, eval=part))
    reading = read(splits={"validation": "dev", "test": "eval"}, **HUB)
    assert set(reading.parts) == {"train", "validation", "test"}
    assert "it is not clear which is which" in str(fail(**HUB))
    assert "the source has no 'test'" in str(fail(splits={"validation": "dev"}, **HUB))


def test_faults_of_rows(fail: Fail, hub: Callable[[object], list[Any]]) -> None:
    hub(make_dataset({"text": ["a", " "], "label": [0, -1]}, ["negative", "positive"]))
    error = fail(**HUB)
    assert [str(fault) for fault in error.faults] == [
        "train row 2: column 'text' is empty",
        "train row 2: column 'label': None is not a class name or a whole number",
    ]


def test_missing_columns_and_no_rows(fail: Fail, hub: Callable[[object], list[Any]]) -> None:
    hub(make_dataset({"texts": ["a"], "label": ["x"]}))
    assert "train: has no column 'text'; it has texts, label; did you mean 'texts'?" in str(fail(**HUB))
    hub(make_dataset({"text": [], "label": []}))
    assert "train: holds no rows" in str(fail(**HUB))


def test_too_many_rows(
    fail: Fail, hub: Callable[[object], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_source, "MAX_ROWS", 1)
    hub(make_dataset({"text": ["a", "b"], "label": ["x", "y"]}))
    assert "train: has 2 rows; a split may have 1" in str(fail(**HUB))


@pytest.mark.parametrize(
    "error",
    [
        datasets.exceptions.DatasetNotFoundError("Dataset 'someone/reviews' doesn't exist on the Hub"),
        ValueError("Config name is missing."),
        ConnectionError("no route " + "x" * 9999),
        RuntimeError("Dataset scripts are no longer supported"),
    ],
)
def test_the_hub_refuses(fail: Fail, hub: Callable[[object], list[Any]], error: Exception) -> None:
    hub(error)
    message = str(fail(**HUB))
    assert f"revision {COMMIT}: the hub does not give it: {type(error).__name__}" in message
    assert len(message) < 800


def test_datasets_is_not_installed(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match="not installed"):
        read(**HUB)


def test_the_digest_is_that_of_the_revision() -> None:
    one, other = DataSpec(**HUB), DataSpec(**{**HUB, "revision": COMMIT[::-1]})
    assert digest_source(one) == digest_source(DataSpec(**HUB))
    assert digest_source(one) != digest_source(other)
