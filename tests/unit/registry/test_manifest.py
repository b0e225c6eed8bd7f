import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from lorry_registry.errors import AdapterRejectedError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.manifest import Evaluation, FileEntry, Manifest, MetricValue


def test_the_same_training_gives_the_same_id_and_another_one_another(
    make_adapter: Callable[..., Any],
) -> None:
    first, again, other = (
        make_adapter(seed=1).manifest,
        make_adapter(seed=1).manifest,
        make_adapter(seed=2).manifest,
    )
    assert first.adapter_id == again.adapter_id != other.adapter_id
    assert first.adapter_id == digest_bytes(first.serialize())


def test_sizes_and_counts_are_summed(make_adapter: Callable[..., Any]) -> None:
    adapter = make_adapter()
    files = [path for path in adapter.path.iterdir() if path.name != "manifest.json"]
    assert adapter.manifest.size_bytes == sum(path.stat().st_size for path in files)
    assert adapter.manifest.parameters.trained == 20


def test_the_primary_metric_comes_first_and_must_exist() -> None:
    metrics = {name: MetricValue(value=1, low=0, high=2) for name in ("accuracy", "f1", "auc")}
    evaluation = Evaluation(split="test", examples=3, primary="f1", metrics=metrics)
    assert [name for name, _ in evaluation.list_metrics()] == ["f1", "accuracy", "auc"]
    with pytest.raises(ValidationError, match="not among the metrics"):
        Evaluation(split="test", examples=3, primary="mae", metrics=metrics)


def test_f1_is_named_with_its_class(make_adapter: Callable[..., Any]) -> None:
    manifest = make_adapter(labels=("bad", "good")).manifest
    metric = MetricValue(value=1, low=0, high=2)
    metrics = {"accuracy": metric, "f1": metric}
    evaluation = Evaluation(split="test", examples=3, primary="f1", metrics=metrics, positive="bad")
    found = manifest.model_copy(update={"evaluation": evaluation})
    assert [evaluation.name_metric(name) for name in metrics] == ["accuracy", "f1 of bad"]
    assert Manifest.parse(found.serialize(), where="x") == found
    # That of many classes, and an answer's, are of none.
    assert evaluation.model_copy(update={"positive": None}).name_metric("f1") == "f1"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\n", "a b", "/etc/passwd", "..", "-x"])
def test_file_names_stay_inside_the_folder(name: str) -> None:
    with pytest.raises(ValidationError, match="plain file name"):
        FileEntry(name=name, size=1, sha256=digest_bytes(b""))


def test_a_metric_that_is_no_number_has_no_place_in_it() -> None:
    with pytest.raises(ValidationError, match="finite number"):
        MetricValue(value=float("nan"), low=0, high=1)


@pytest.mark.parametrize("change", [{"format": 2}, {"colour": "blue"}, {"method": None}])
def test_what_this_version_does_not_know_is_refused(
    make_adapter: Callable[..., Any], change: dict[str, Any]
) -> None:
    document = json.loads(make_adapter().manifest.serialize()) | change
    with pytest.raises(
        AdapterRejectedError, match="not a manifest that this version of lorry can read"
    ) as caught:
        Manifest.parse(json.dumps(document).encode(), where="store/x")
    assert "store/x" in str(caught.value)
    assert "upgrade lorry" in str(caught.value)
