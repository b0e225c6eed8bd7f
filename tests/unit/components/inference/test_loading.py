"""Loading an adapter on its base: what is refused, and that what loads is what was registered."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lorry_components.inference import Predictor, assemble_adapter, load_adapter
from lorry_components.inference.recorded_outputs import (
    LARGEST_TOLERANCE,
    LEAST_EFFECT,
    find_tolerance,
    measure_distances,
    record_outputs,
)
from lorry_components.methods import METHODS
from lorry_components.methods.base import AdaptedModel
from lorry_components.models.bases import resolve_base
from lorry_components.steps.finetune.step import finetune
from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_components.tasks.definition import find_method, find_task_type
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.adapters.verification import describe_file
from lorry_registry.errors import AdapterRejectedError, BaseModelError, TrainingError
from lorry_registry.files.digests import canonical_json
from lorry_registry.manifest import ADAPTER_FILES, CONFIG_NAME, MANIFEST_NAME, WEIGHTS_NAME, Manifest
from lorry_registry.tasks.input_specs import BaseSpec

# One method of each family: what a method does by itself has tests of its own.
TRIED = ("full", "lora", "adapter-h", "p-tuning", "p-tuning-v2", "peft")

FindTrained = Callable[..., Any]


def assemble(trained: Any) -> Predictor:
    return assemble_adapter(
        trained.adapter,
        base=resolve_base(trained.spec.base),
        task_type=find_task_type(trained.spec),
        method=find_method(trained.spec),
        labels=trained.summary.labels,
    )


def write_manifest(folder: Path, manifest: Manifest, **changes: Any) -> Manifest:
    """Write a manifest over the files that are in a folder now, as who published them would have."""
    files = tuple(describe_file(folder / name) for name in ADAPTER_FILES)
    changed = manifest.model_copy(update={"files": files, **changes})
    (folder / MANIFEST_NAME).write_bytes(changed.serialize())
    return changed


@dataclass(frozen=True)
class Published:
    """An adapter folder as the store holds it."""

    folder: Path
    manifest: Manifest
    trained: Any


@pytest.fixture
def publish(trained: FindTrained, tmp_path: Path) -> Callable[..., Published]:
    """Return a function that lays out an adapter with its manifest, in a folder of the test's own."""

    def make(task: str = "regression", method: str = "lora", **options: Any) -> Published:
        source = trained(task, method, **options)
        folder = tmp_path / f"published-{task}-{method}"
        shutil.copytree(source.adapter, folder)
        (folder / "README.md").write_text("# an adapter\n")
        summary: TrainingSummary = source.summary
        manifest = Manifest(
            task=source.spec.name,
            kind=source.spec.kind,
            base=summary.base,
            method=method,
            recipe=source.spec.describe_recipe(),
            inputs=summary.inputs,
            labels=summary.labels,
            parameters=summary.parameters,
            evaluation=source.report.evaluation,
            probe=source.report.probe,
            libraries=summary.libraries,
            files=(),
        )
        return Published(folder, write_manifest(folder, manifest), source)

    return make


def refuse(folder: Path, **options: Any) -> AdapterRejectedError:
    with pytest.raises(AdapterRejectedError) as caught:
        load_adapter(folder, **options)
    assert caught.value.where
    assert caught.value.todo
    return caught.value


# What loads


@pytest.mark.parametrize("method", TRIED)
@pytest.mark.parametrize("task", ["regression", "classification", "pair"])
def test_a_published_adapter_loads_and_predicts_what_was_evaluated(
    publish: Callable[..., Published], task: str, method: str
) -> None:
    published = publish(task, method)
    loaded = load_adapter(published.folder, expected_id=published.manifest.adapter_id)
    assert loaded.manifest == published.manifest
    assert loaded.task_type.name == published.trained.spec.kind
    rows = published.manifest.probe.rows
    assert ("text_pair" in rows[0]) == (task == "pair")
    np.testing.assert_array_equal(
        loaded.predictor.compute_outputs(rows), assemble(published.trained).compute_outputs(rows)
    )
    np.testing.assert_allclose(loaded.predictor.compute_outputs(rows), published.manifest.probe.outputs)
    np.testing.assert_allclose(
        loaded.predictor.compute_base_outputs(rows), published.manifest.probe.base_outputs, atol=1e-6
    )


def test_the_base_may_lie_elsewhere(publish: Callable[..., Published], tmp_path: Path) -> None:
    published = publish()
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(published.trained.summary.base.model, elsewhere)
    write_manifest(
        published.folder,
        published.manifest,
        base=published.manifest.base.model_copy(update={"model": str(tmp_path / "gone")}),
    )
    with pytest.raises(BaseModelError, match="there is no such folder"):
        load_adapter(published.folder)
    assert load_adapter(published.folder, base_model=str(elsewhere)).predictor.predict([{"text": "good"}])


def test_a_base_without_a_pooler_gives_the_same_outputs_at_each_load(
    publish: Callable[..., Published],
) -> None:
    # The base's pooler is other random numbers at each load: the adapter's has to replace it, even where the
    # adapter's change is switched off.
    for method in TRIED:
        published = publish("regression", method, base="bert-without-pooler")
        torch.manual_seed(int(published.folder.stat().st_ino))
        loaded = load_adapter(published.folder)
        rows = published.manifest.probe.rows
        np.testing.assert_allclose(
            loaded.predictor.compute_base_outputs(rows), published.manifest.probe.base_outputs, atol=1e-6
        )


# What is refused


def test_a_changed_byte_in_the_weights_is_refused(publish: Callable[..., Published]) -> None:
    published = publish()
    path = published.folder / WEIGHTS_NAME
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert f"{WEIGHTS_NAME} was changed" in refuse(published.folder).what


def test_an_extra_file_is_refused(publish: Callable[..., Published]) -> None:
    published = publish()
    (published.folder / "notes.txt").write_text("hello")
    assert "notes.txt does not belong to it" in refuse(published.folder).what
    assert load_adapter(published.folder, beside=frozenset({"notes.txt"}))


def test_a_pickle_beside_the_weights_is_refused(publish: Callable[..., Published]) -> None:
    published = publish()
    torch.save({}, published.folder / "adapter_model.bin")
    assert "adapter_model.bin does not belong to it" in refuse(published.folder).what


def test_a_pickle_instead_of_the_weights_is_refused(publish: Callable[..., Published]) -> None:
    published = publish()
    torch.save({"weight": torch.ones(2)}, published.folder / WEIGHTS_NAME)
    write_manifest(published.folder, published.manifest)
    assert "header" in refuse(published.folder).what


def test_another_adapter_than_the_one_asked_for_is_refused(publish: Callable[..., Published]) -> None:
    published = publish()
    other = "sha256:" + "1" * 64
    assert f"not {other}" in refuse(published.folder, expected_id=other).what


def test_another_base_of_the_same_architecture_is_refused(
    publish: Callable[..., Published], make_base: Callable[..., Path]
) -> None:
    published = publish()
    error = refuse(published.folder, base_model=str(make_base(seed=5)))
    assert published.manifest.base.fingerprint in error.what
    assert "and this base has sha256:" in error.what


def test_a_base_that_changed_in_its_place_is_refused(
    publish: Callable[..., Published], make_base: Callable[..., Path]
) -> None:
    published = publish()
    folder = make_base(seed=5)
    identity = published.manifest.base.model_copy(update={"model": str(folder)})
    write_manifest(published.folder, published.manifest, base=identity)
    assert "and this base has sha256:" in refuse(published.folder).what


@pytest.mark.parametrize("change", [0.01, -0.5, 100.0])
def test_outputs_that_differ_from_the_recorded_ones_are_refused(
    publish: Callable[..., Published], change: float
) -> None:
    published = publish()
    probe = published.manifest.probe
    outputs = ((probe.outputs[0][0] + change,), *probe.outputs[1:])
    write_manifest(published.folder, published.manifest, probe=probe.model_copy(update={"outputs": outputs}))
    assert "outputs on the probe differ" in refuse(published.folder).what


def _record_effect(published: Published, effect: float) -> None:
    """Write down as the base's outputs such as are this far from the adapter's."""
    probe = published.manifest.probe
    base_outputs = tuple((row[0] + effect * (1 + abs(row[0])),) for row in probe.outputs)
    changed = probe.model_copy(update={"base_outputs": base_outputs})
    write_manifest(published.folder, published.manifest, probe=changed)


@pytest.mark.parametrize("effect", [1.0, 1e-3, 1e-5])
def test_the_base_alone_is_never_taken_for_an_adapter(
    publish: Callable[..., Published], monkeypatch: pytest.MonkeyPatch, effect: float
) -> None:
    published = publish()
    _record_effect(published, effect)
    assert load_adapter(published.folder)
    compute = Predictor.compute_outputs

    def compute_as_the_base(self: Predictor, rows: Any) -> Any:
        outputs = compute(self, rows)
        return outputs + effect * (1 + np.abs(outputs))

    monkeypatch.setattr(Predictor, "compute_outputs", compute_as_the_base)
    assert "outputs on the probe differ by" in refuse(published.folder).what


def test_a_probe_that_records_no_effect_is_refused(publish: Callable[..., Published]) -> None:
    published = publish()
    _record_effect(published, 0.0)
    assert "records the outputs of the base" in refuse(published.folder).what


def test_what_is_registered_can_be_told_from_the_base_when_it_is_loaded() -> None:
    recorded = np.asarray([[0.5, -20.0]], np.float32)
    for effect in (LEAST_EFFECT, 1e-3, 10.0):
        base_outputs = recorded + effect * (1 + np.abs(recorded))
        tolerance = find_tolerance(recorded, base_outputs)
        assert 0 < tolerance <= LARGEST_TOLERANCE
        assert (measure_distances(base_outputs, recorded) > tolerance).all()


def test_the_last_digits_of_outputs_may_differ(publish: Callable[..., Published]) -> None:
    # A few steps of LoRA on a tiny base change little more than these digits.
    published = publish(method="full")
    probe = published.manifest.probe
    outputs = tuple((row[0] + 1e-4,) for row in probe.outputs)
    write_manifest(published.folder, published.manifest, probe=probe.model_copy(update={"outputs": outputs}))
    assert load_adapter(published.folder)


@pytest.mark.parametrize("field", ["outputs", "base_outputs"])
@pytest.mark.parametrize(
    "outputs", [(), ((0.1,),), ((0.1, 0.2),) * 3, ((),) * 3], ids=["none", "few", "wide", "empty"]
)
def test_a_probe_of_another_shape_is_refused(
    publish: Callable[..., Published], outputs: Any, field: str
) -> None:
    published = publish()
    probe = published.manifest.probe.model_copy(update={field: outputs})
    write_manifest(published.folder, published.manifest, probe=probe)
    refuse(published.folder)


def test_an_adapter_without_a_probe_is_refused(publish: Callable[..., Published]) -> None:
    published = publish()
    probe = published.manifest.probe.model_copy(update={"rows": (), "outputs": (), "base_outputs": ()})
    write_manifest(published.folder, published.manifest, probe=probe)
    refuse(published.folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "token-classification"}, "token-classification"),
        ({"method": "mandola"}, "mandola"),
    ],
)
def test_an_unknown_kind_or_method_is_refused(
    publish: Callable[..., Published], changes: dict[str, str], named: str
) -> None:
    published = publish()
    write_manifest(published.folder, published.manifest, **changes)
    error = refuse(published.folder)
    assert named in error.what
    assert error.todo == "upgrade lorry"


def test_a_method_that_does_not_fit_the_files_is_refused(publish: Callable[..., Published]) -> None:
    published = publish()
    for method in ("full", "p-tuning"):
        write_manifest(published.folder, published.manifest, method=method)
        refuse(published.folder)


@pytest.mark.parametrize("recipe", [{}, {"data": None}, {"data": {}}, {"data": {"max_length": "many"}}])
def test_a_recipe_that_does_not_say_how_long_texts_are_is_refused(
    publish: Callable[..., Published], recipe: dict[str, Any]
) -> None:
    published = publish()
    write_manifest(published.folder, published.manifest, recipe=recipe)
    assert "max_length" in refuse(published.folder).what


@pytest.mark.parametrize(("task", "labels"), [("classification", None), ("regression", ("good", "bad"))])
def test_labels_that_do_not_suit_the_kind_are_refused(
    publish: Callable[..., Published], task: str, labels: tuple[str, ...] | None
) -> None:
    published = publish(task)
    write_manifest(published.folder, published.manifest, labels=labels)
    assert "labels" in refuse(published.folder).what


def test_a_manifest_that_was_edited_is_refused(publish: Callable[..., Published]) -> None:
    published = publish()
    document = json.loads((published.folder / MANIFEST_NAME).read_bytes())
    (published.folder / MANIFEST_NAME).write_text(json.dumps(document, indent=1))
    assert "canonical" in refuse(published.folder).what
    document["evaluation"]["metrics"]["pearson"]["value"] = 0.999
    (published.folder / MANIFEST_NAME).write_bytes(canonical_json(document))
    assert "its id is sha256:" in refuse(published.folder, expected_id=published.manifest.adapter_id).what


def test_weights_of_other_numbers_are_told_by_the_probe(publish: Callable[..., Published]) -> None:
    # All digests agree, and yet it is not what was evaluated.
    published = publish()
    path = published.folder / WEIGHTS_NAME
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["base_model.model.classifier.bias"] += 0.5
    save_file(tensors, path)
    write_manifest(published.folder, published.manifest)
    assert "outputs on the probe differ by" in refuse(published.folder).what


def test_a_configuration_that_names_code_is_refused(publish: Callable[..., Published]) -> None:
    published = publish()
    config = json.loads((published.folder / CONFIG_NAME).read_text())
    (published.folder / CONFIG_NAME).write_text(
        json.dumps(config | {"auto_mapping": {"parent_library": "os"}})
    )
    write_manifest(published.folder, published.manifest)
    assert "auto_mapping would import code" in refuse(published.folder).what


# Predicting


@pytest.fixture(scope="module")
def predictor(trained: FindTrained) -> Predictor:
    return assemble(trained("classification"))


def write_texts(count: int) -> list[dict[str, str]]:
    return [{"text": "the film was " + "good " * (index * 7 % 11) + "dull"} for index in range(count)]


def test_predictions_stand_in_the_order_of_the_rows(predictor: Predictor) -> None:
    rows = write_texts(150)
    together = predictor.compute_outputs(rows)
    assert together.shape == (150, 3)
    assert together.dtype == np.float32
    alone = np.concatenate([predictor.compute_outputs([row]) for row in rows[:11]])
    np.testing.assert_allclose(together[:11], alone, atol=1e-6)
    np.testing.assert_allclose(predictor.compute_outputs(rows[::-1]), together[::-1], atol=1e-6)


def test_a_prediction_names_a_class_of_the_task(predictor: Predictor) -> None:
    for prediction in predictor.predict(write_texts(5)):
        assert prediction["label"] in prediction["scores"]
        assert set(prediction["scores"]) == {"bad", "good", "mixed"}


def test_no_rows_give_no_predictions(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    assert predictor.compute_outputs([]).shape == (0, 3)


def test_a_caller_is_told_how_many_rows_are_done(predictor: Predictor) -> None:
    done: list[int] = []
    predictor.predict(write_texts(150), report=done.append)
    assert done == [64, 128, 150]


def test_rows_are_predicted_a_part_at_a_time(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, done = write_texts(150), list[int]()
    whole = predictor.predict(rows)
    monkeypatch.setattr("lorry_components.inference.predictor.ROWS_AT_ONCE", 70)
    parts = list(predictor.predict_parts(rows, report=done.append))
    assert [len(part) for part in parts] == [70, 70, 10]
    assert done == [64, 70, 134, 140, 150]
    together = [prediction for part in parts for prediction in part]
    assert [prediction["label"] for prediction in together] == [prediction["label"] for prediction in whole]
    np.testing.assert_allclose(
        [each["score"] for each in together], [each["score"] for each in whole], atol=1e-6
    )


def test_predicting_leaves_no_trace_of_the_base_outputs(predictor: Predictor) -> None:
    rows = write_texts(3)
    weights = {name: each.clone() for name, each in predictor.adapted.model.state_dict().items()}
    before = predictor.compute_outputs(rows)
    base = predictor.compute_base_outputs(rows)
    after = predictor.adapted.model.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weight) for name, weight in weights.items())
    # Memory of another alignment may change the last bit.
    np.testing.assert_allclose(predictor.compute_outputs(rows), before, rtol=1e-6)
    assert np.abs(base - before).max() > 1e-5


def test_a_decoder_without_a_token_for_padding_is_a_base_too(
    tiny_base: Callable[[str], Path],
    make_spec: Callable[..., Any],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    # As GPT-2 and Llama are published: what ends a text pads it, and the head looks before it.
    method = {"name": "lora", "r": 4, "targets": ["c_attn"]}
    spec = make_spec("regression", method, base="gpt2-without-padding", train={"epochs": None, "steps": 2})
    finetune(resolve_task(spec), tiny_data("regression"), tmp_path, checkpoints=tmp_path / "checkpoints")
    predictor = assemble_adapter(
        tmp_path / "adapter",
        base=resolve_base(spec.base),
        task_type=find_task_type(spec),
        method=find_method(spec),
        labels=None,
    )
    rows = write_texts(9)
    alone = np.concatenate([predictor.compute_outputs([row]) for row in rows])
    np.testing.assert_allclose(predictor.compute_outputs(rows), alone, atol=1e-5)


# The probe


def build_untrained(folder: Path) -> Predictor:
    task_type = TASK_TYPES["regression"](InputForm(max_length=32))
    bare, newly_initialized = task_type.load_model(folder, None)
    method = METHODS["lora"]({"r": 2, "targets": ["query"]})
    model = method.adapt(bare, newly_initialized).eval()
    from lorry_components.methods.peft.base import without_adapter

    adapted = AdaptedModel(model, lambda: without_adapter(model))
    return Predictor(adapted, task_type.load_reader(folder), task_type, None)


def test_an_adapter_that_changes_nothing_is_refused(tiny_base: Callable[[str], Path]) -> None:
    with pytest.raises(TrainingError) as caught:
        record_outputs(build_untrained(tiny_base("bert")), has_pair=False)
    assert "changes nothing" in caught.value.what
    assert "targets" in caught.value.todo


def test_outputs_that_are_not_finite_are_refused(tiny_base: Callable[[str], Path]) -> None:
    predictor = build_untrained(tiny_base("bert"))
    with torch.no_grad():
        for name, parameter in predictor.adapted.model.named_parameters():
            if name.endswith("lora_B.default.weight"):
                parameter.fill_(float("nan"))
    with pytest.raises(TrainingError, match="outputs are not finite"):
        record_outputs(predictor, has_pair=False)


@pytest.mark.parametrize("task", ["regression", "pair"])
def test_a_probe_records_rows_of_the_task(trained: FindTrained, task: str) -> None:
    found = trained(task)
    probe = record_outputs(assemble(found), has_pair=task == "pair")
    assert probe == found.report.probe
    assert {tuple(row) for row in probe.rows} == {("text", "text_pair") if task == "pair" else ("text",)}
    width = 1 if task == "regression" else 2
    assert {len(row) for row in (*probe.outputs, *probe.base_outputs)} == {width}


def test_a_base_that_is_not_there_is_told(publish: Callable[..., Published]) -> None:
    published = publish()
    with pytest.raises(BaseModelError, match="no importable package"):
        load_adapter(published.folder, base_model="package:no_such_package/model")
    assert resolve_base(BaseSpec(model=published.manifest.base.model)).identity == published.manifest.base


# Attacks whose digests all agree: a forger seals what was planted


def _plant_in_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS_NAME).items()}
        change(tensors)
        save_file(tensors, folder / WEIGHTS_NAME)

    return plant


def _plant_in_config(**fields: Any) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        config = json.loads((folder / CONFIG_NAME).read_text())
        (folder / CONFIG_NAME).write_text(json.dumps(config | fields))

    return plant


def _grow_header(folder: Path) -> None:
    content = (folder / WEIGHTS_NAME).read_bytes()
    length = int.from_bytes(content[:8], "little")
    longer = content[8 : 8 + length] + b" " * (1 << 20)
    (folder / WEIGHTS_NAME).write_bytes(len(longer).to_bytes(8, "little") + longer + content[8 + length :])


def _choose(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in sorted(tensors) if "lora_A" in name)


def _turn_around(tensors: dict[str, torch.Tensor]) -> None:
    name = _choose(tensors)
    tensors[name] = tensors[name].t().contiguous()


SEALED_ATTACKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "NaN": (_plant_in_weights(lambda it: it[_choose(it)].fill_(float("nan"))), "holds NaN or infinity"),
    "infinity": (
        _plant_in_weights(lambda it: it[_choose(it)].view(-1)[:1].fill_(float("-inf"))),
        "holds NaN or infinity",
    ),
    "another shape": (_plant_in_weights(_turn_around), "has shape"),
    "a tensor too many": (
        _plant_in_weights(lambda it: it.update({"base_model.model.evil.weight": torch.ones(1)})),
        "is not part of this method on this base",
    ),
    "a tensor too few": (_plant_in_weights(lambda it: it.pop(_choose(it))), "is missing"),
    "another rank": (_plant_in_config(r=64), "has shape"),
    "a huge header": (_grow_header, "cannot be right"),
    "an unknown key": (_plant_in_config(of_tomorrow=True), "would be ignored by this version of PEFT"),
    "code": (_plant_in_config(auto_mapping={"parent_library": "os"}), "auto_mapping would import code"),
    "another type": (_plant_in_config(peft_type="PROMPT_TUNING"), "peft_type is 'PROMPT_TUNING'"),
    "no targets": (_plant_in_config(target_modules=[]), ""),
}


@pytest.mark.parametrize("attack", SEALED_ATTACKS)
def test_what_a_forger_sealed_is_refused(publish: Callable[..., Published], attack: str) -> None:
    plant, said = SEALED_ATTACKS[attack]
    published = publish()
    plant(published.folder)
    write_manifest(published.folder, published.manifest)
    assert said in refuse(published.folder).what


def test_another_tasks_adapter_is_not_the_one_that_was_asked_for(publish: Callable[..., Published]) -> None:
    published = publish()
    write_manifest(published.folder, published.manifest, task="films")
    assert "its id is sha256:" in refuse(published.folder, expected_id=published.manifest.adapter_id).what
