"""A text to write, from rows to a prediction: each step in its turn, and plain MLflow at the end."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorry_components.inference import load_adapter
from lorry_components.steps.evaluate.evaluation_report import PLOT_NAME, PREDICTIONS_NAME, EvaluationReport
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.gate.step import decide
from lorry_components.steps.prepare_data.step import DataCard, load_card, load_part, prepare_data
from lorry_components.steps.register.step import register
from lorry_components.tasks.base_checks import check_base, check_bases
from lorry_components.tasks.definition import find_task_type, load_task_file
from lorry_components.tasks.passed_checks import PassedChecks
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.errors import InvalidDataError, InvalidTaskError
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
MR = "name[Aromi], food[French], area[riverside]"


@dataclass(frozen=True)
class Passage:
    """What the steps left behind."""

    card: DataCard
    summary: TrainingSummary
    report: EvaluationReport
    folder: Path


def run(spec: TaskSpec, folder: Path, registry: Registry, index: MlflowIndex | None = None) -> Passage:
    card = prepare_data(resolve_task(spec), folder / "data")
    summary = finetune(
        resolve_task(spec), folder / "data", folder / "candidate", checkpoints=folder / "checkpoints"
    )
    report = evaluate(
        resolve_task(spec), folder / "data", folder / "candidate", folder / "evaluation", registry=registry
    )
    registration = register(
        resolve_task(spec),
        folder / "candidate",
        report,
        decide(spec.gate, EvaluationReport.load(folder / "evaluation")),
        registry=registry,
        index=index,
        details={},
    )
    assert registration.warning == ""
    return Passage(card, summary, report, registry.fetch(registration.event.adapter_id))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")


def test_a_causal_model_learns_to_write(
    make_spec: MakeSpec, registry: Registry, tmp_path: Path, tracking: str
) -> None:
    spec = make_spec(
        "gpt2",
        "full",
        data={"template": "{text} -> {label}"},
        train={
            "epochs": 60,
            "batch_size": 16,
            "gradient_accumulation": 2,
            "early_stopping": {"patience": 60},
        },
    )
    passage = run(spec, tmp_path, registry, MlflowIndex(tracking))
    metrics = passage.report.evaluation.metrics
    assert passage.report.evaluation.primary == "bleu"
    assert list(metrics) == ["bleu", "nist", "meteor-1.5", "rouge-l", "cider", "exact_match"]
    assert all(metric.low <= metric.value <= metric.high for metric in metrics.values())
    # Of a base that knows nothing; without its training BLEU is below 0.01.
    assert metrics["bleu"].value > 0.25
    assert passage.summary.loss < 1
    # Both sentences of a meaning are references of one prediction.
    predictions = [
        json.loads(line) for line in (tmp_path / "evaluation" / PREDICTIONS_NAME).read_text().splitlines()
    ]
    assert {len(row["label"]) for row in predictions} == {2}
    assert len(predictions) == passage.report.evaluation.examples == passage.card.splits["test"].rows // 2
    assert (tmp_path / "evaluation" / PLOT_NAME).stat().st_size > 5000

    loaded = load_adapter(passage.folder)
    (found,) = loaded.predictor.predict([{"text": MR}])
    assert set(found) == {"text"}
    assert len(found["text"].split()) > 2
    recorded = {row["text"]: row["prediction"] for row in predictions}
    again = loaded.predictor.predict([{"text": text} for text in recorded])
    assert again == list(recorded.values())
    np.testing.assert_allclose(
        loaded.predictor.compute_outputs(loaded.manifest.probe.rows), loaded.manifest.probe.outputs, rtol=1e-5
    )

    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(f"models:/{spec.name}@champion")
    assert model.predict([MR])["text"].tolist() == [found["text"]]


@pytest.mark.parametrize("style", ["gpt2", "t5", "bart"])
def test_answers_that_are_cut_are_told_with_how_many(
    make_spec: MakeSpec, tiny_base: Callable[[str], Path], tmp_path: Path, style: str
) -> None:
    def list_warnings(max_target: int, *, has_base: bool = True) -> list[str]:
        spec = make_spec(style, data={"max_target": max_target})
        folder = tmp_path / f"{max_target}-{has_base}"
        card = prepare_data(resolve_task(spec), folder, base=tiny_base(style) if has_base else None)
        assert load_card(folder) == card
        return [warning for warning in card.warnings if "data.max_target" in warning]

    spec = make_spec(style)
    writer = find_task_type(spec).build_writer(find_task_type(spec).load_reader(tiny_base(style)))  # type: ignore[attr-defined]
    prepare_data(resolve_task(spec), tmp_path / "plain")
    lengths = {
        part: sorted(writer.measure_answers([str(row.label) for row in load_part(tmp_path / "plain", part)]))
        for part in ("train", "validation", "test")
    }
    longest = max(found[-1] for found in lengths.values())
    assert list_warnings(longest) == []
    assert list_warnings(4, has_base=False) == []
    told = list_warnings(lengths["train"][-10])
    cut = sum(length > lengths["train"][-10] for length in lengths["train"])
    assert 0 < cut < 10
    assert told[0] == (
        f"train has {cut} of {len(lengths['train'])} answers in more than data.max_target, "
        f"{lengths['train'][-10]} tokens: their ends are not learned; the longest has {lengths['train'][-1]}"
    )
    everywhere = list_warnings(4)
    assert [warning.partition(" ")[0] for warning in everywhere] == ["train", "validation", "test"]
    assert "no prediction can be as long" in everywhere[2]


@pytest.mark.parametrize(("style", "method"), [("t5", "lora"), ("bart", "full"), ("llama", "lora")])
def test_an_adapter_is_trained_registered_and_found(
    make_spec: MakeSpec, registry: Registry, tmp_path: Path, style: str, method: str
) -> None:
    spec = make_spec(style, method)
    passage = run(spec, tmp_path, registry)
    assert passage.report.evaluation.primary == ("bleu" if style == "llama" else "exact_match")
    loaded = load_adapter(passage.folder)
    assert loaded.task_type.name == spec.kind
    (found,) = loaded.predictor.predict([{"text": MR}])
    assert isinstance(found["text"], str)
    # A second training is compared with it.
    second = run(make_spec(style, method, train={"seed": 1}), tmp_path / "second", registry)
    assert second.report.champion is not None
    assert second.report.champion.confidence is not None


def test_a_training_that_was_killed_goes_on(make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec("qwen2", train={"epochs": 2, "batch_size": 4, "gradient_accumulation": 2})
    prepare_data(resolve_task(spec), tmp_path / "data")
    whole = finetune(resolve_task(spec), tmp_path / "data", tmp_path / "whole", checkpoints=tmp_path / "a")

    class _KilledError(Exception):
        pass

    def kill(done: int, total: int, _note: str = "") -> None:
        if done == total - 1:
            raise _KilledError

    with pytest.raises(_KilledError):
        finetune(
            resolve_task(spec),
            tmp_path / "data",
            tmp_path / "part",
            checkpoints=tmp_path / "b",
            progress=kill,
        )
    part = finetune(resolve_task(spec), tmp_path / "data", tmp_path / "part", checkpoints=tmp_path / "b")
    assert 0 < part.resumed_from < whole.steps
    weights = "adapter/adapter_model.safetensors"
    assert (tmp_path / "part" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


@pytest.mark.parametrize("style", ["gpt2", "llama", "gemma3_text"])
def test_frozen_layers_may_be_computed_once(make_spec: MakeSpec, tmp_path: Path, style: str) -> None:
    losses = []
    for kept in (False, True):
        train = {"hidden_dropout": 0.0, "cache_frozen_layers": kept, "gradient_accumulation": 2}
        spec = make_spec(style, {"name": "lora", "layers": 1}, train=train)
        prepare_data(resolve_task(spec), tmp_path / "data")
        summary = finetune(
            resolve_task(spec),
            tmp_path / "data",
            tmp_path / f"{kept}",
            checkpoints=tmp_path / f"checkpoints-{kept}",
        )
        losses.append(summary.loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_frozen_layers_of_two_stacks_are_not_kept(make_spec: MakeSpec) -> None:
    spec = make_spec("t5", train={"cache_frozen_layers": True})
    with pytest.raises(InvalidTaskError, match="for one stack of layers"):
        check_base(spec, Path(spec.base.model))


def test_a_pair_of_texts_becomes_one_prompt(make_spec: MakeSpec, registry: Registry, tmp_path: Path) -> None:
    spec = make_spec(
        "gpt2",
        data={
            "columns": {"text": "mr", "text_pair": "near", "label": "ref"},
            "template": "{text}\n{text_pair}: {label}",
        },
        evaluate={"metrics": ["sql_match", "rouge-l"], "primary": "rouge-l"},
    )
    passage = run(spec, tmp_path, registry)
    assert list(passage.report.evaluation.metrics) == ["rouge-l", "sql_match"]
    rows = passage.report.probe.rows
    assert all(set(row) == {"text", "text_pair"} for row in rows)
    assert load_adapter(passage.folder).predictor.predict(rows)


# Bad input, before anything is trained


def write_task(folder: Path, spec: TaskSpec, **sections: Any) -> Path:
    import yaml

    document = spec.model_dump(mode="json")
    document["method"] = {"name": document["method"]["name"]}
    for name, given in sections.items():
        document[name] = document[name] | given if isinstance(given, dict) else given
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    return path


def list_faults(path: Path) -> list[str]:
    with pytest.raises(InvalidTaskError) as caught:
        check_bases([load_task_file(path)], PassedChecks(Path("nowhere") / "a" / "b"))
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("style", "sections", "fault"),
    [
        ("gpt2", {"data": {"template": "no text"}}, "data.template: it has no {text}"),
        ("t5", {"data": {"template": "{label} {text}"}}, "data.template: the answer follows the prompt"),
        ("gpt2", {"data": {"template": "{text} {mr}"}}, "data.template: there is no {mr}"),
        ("gpt2", {"data": {"prompt": "{text}"}}, "data.prompt"),
        ("gpt2", {"generate": {"beam": 3}}, "generate.beam"),
        ("gpt2", {"data": {"max_length": 97}}, "data.max_length: 97 tokens of text are more than the 96"),
        ("gpt2", {"data": {"max_target": 72}}, "data.max_target: answers of 72 tokens leave nothing of 72"),
        (
            "bart",
            {"data": {"max_target": 97}},
            "data.max_target: 97 tokens of an answer are more than the 96",
        ),
        ("gpt2", {"generate": {"chat": "always"}}, "generate.chat: the base has no chat template"),
        ("t5", {"kind": "text-generation"}, "base.model: t5 has an encoder; write kind: text-to-text"),
        ("gpt2", {"kind": "text-to-text"}, "base.model: gpt2 is no sequence-to-sequence model"),
        ("gpt2", {"evaluate": {"primary": "blue"}}, "did you mean 'bleu'?"),
        ("t5", {"method": {"name": "p-tuning-v2"}}, "method.name: p-tuning-v2 is for one stack of blocks"),
        (
            "gpt2",
            {"method": {"name": "p-tuning", "template": "[P] {text}"}},
            "method.template: text-generation has no places for soft tokens",
        ),
    ],
)
def test_what_cannot_work_is_told_at_once(
    make_spec: MakeSpec, tmp_path: Path, style: str, sections: dict[str, Any], fault: str
) -> None:
    (found,) = list_faults(write_task(tmp_path, make_spec(style), **sections))
    assert fault in found


def test_an_encoder_is_no_base_to_write_with(make_spec: MakeSpec, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=20, **sizes)).save_pretrained(tmp_path / "bert")
    path = write_task(tmp_path, make_spec("gpt2"), base={"model": str(tmp_path / "bert")})
    (found,) = list_faults(path)
    assert "bert is no causal language model" in found


def test_a_base_that_chats_may_be_asked_to(make_spec: MakeSpec, tmp_path: Path) -> None:
    check_bases(
        [load_task_file(write_task(tmp_path, make_spec("qwen2"), generate={"chat": "always"}))],
        PassedChecks(Path("nowhere") / "a" / "b"),
    )
    check_bases(
        [load_task_file(write_task(tmp_path, make_spec("gpt2"), generate={"chat": "auto"}))],
        PassedChecks(Path("nowhere") / "a" / "b"),
    )


@pytest.mark.parametrize("answer", ["", "  \n", None, 1.5])
def test_an_empty_answer_is_told_with_its_line(make_spec: MakeSpec, tmp_path: Path, answer: object) -> None:
    source = tmp_path / "rows.jsonl"
    rows = [{"mr": f"name[{number}]", "ref": "fine"} for number in range(20)] + [{"mr": "x", "ref": answer}]
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    with pytest.raises(InvalidDataError) as caught:
        prepare_data(resolve_task(make_spec("gpt2", data={"source": str(source)})), tmp_path / "data")
    (fault,) = caught.value.faults
    assert "line 21" in fault.where
    assert "'ref'" in fault.what
