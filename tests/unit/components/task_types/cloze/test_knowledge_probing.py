"""Knowledge probing: clozes on masked and on left-to-right bases, with and without soft tokens."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import (
    AutoConfig,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
)
from transformers.utils import logging as transformers_logging

from lorry_components.inference import load_adapter
from lorry_components.inference.mlflow_flavor import AdapterModel
from lorry_components.memory import plan_task
from lorry_components.methods import METHODS
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.evaluate.zero_shot import score_zero_shot
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.gate.step import Decision
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.steps.register.step import register
from lorry_components.task_types import InputForm, KnowledgeProbing
from lorry_components.tasks.base_checks import check_base
from lorry_components.tasks.definition import inspect_task
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import BaseModelError, InvalidTaskError, TrainingError
from lorry_registry.manifest import WEIGHTS_NAME
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec

WORDING = "{text} is located in {label} ."
SOFT = "[P]*2 {text} [P] is located in [P] {label} ."
TOWNS = [f"{first}{last}" for first in ("river", "lake", "stone", "wood") for last in ("ton", "ham", "by")]
SIZES = ("old", "new", "great", "little", "upper", "lower")
COUNTRIES = ("norway", "spain", "chile")
WORDS = [*TOWNS, *SIZES, *COUNTRIES, "is", "located", "in", ".", "which", "country", "?", "united", "states"]
STYLES = ("bert", "roberta", "gpt2")
Base = Callable[[str], Path]


def write_rows() -> list[dict[str, str]]:
    # Of three in four towns the country is the same: what a prompt alone can learn.
    return [
        {
            "text": f"{size} {town}",
            "label": COUNTRIES[max(0, index % 6 - 3)],
        }
        for size in SIZES
        for index, town in enumerate(TOWNS)
    ]


def build_wordpieces() -> PreTrainedTokenizerBase:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return BertTokenizer(vocab={word: index for index, word in enumerate([*special, *WORDS])})


def build_bytes(*, is_masked: bool) -> PreTrainedTokenizerBase:
    """Build a tokeniser in which white space is part of the word after it."""
    special = ["<pad>", "<s>", "</s>", "<mask>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token=special[-1]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = [f" {' '.join(WORDS)}"] * 3 + WORDS
    tokenizer.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    )
    ends = [("<s>", 1), ("</s>", 2)]
    template = "<s> $A </s>" if is_masked else "<s> $A"
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ends)
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="<mask>", **names)  # noqa: S106


def build_base(style: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    torch.manual_seed(0)
    tokenizer = build_wordpieces() if style.startswith("bert") else build_bytes(is_masked=style == "roberta")
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
    }
    models_by_style: dict[str, Callable[[], PreTrainedModel]] = {
        "bert": lambda: BertForMaskedLM(BertConfig(**sizes)),
        "bert-body": lambda: BertModel(BertConfig(**sizes)),
        "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**sizes, type_vocab_size=1, pad_token_id=0)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=66, eos_token_id=2
            )
        ),
    }
    return models_by_style[style](), tokenizer


@pytest.fixture(autouse=True, scope="module")
def calm_libraries() -> None:
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Return a function from a style to the folder of a tiny random base."""
    root = tmp_path_factory.mktemp("bases")

    def find(style: str) -> Path:
        if not (root / style).exists():
            model, tokenizer = build_base(style)
            # Larger numbers than a new model has, so that its outputs differ.
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim == 2:
                        parameter.mul_(8)
            model.save_pretrained(root / style)
            tokenizer.save_pretrained(root / style)
        return root / style

    return find


class Loaded:
    """A kind with its base."""

    def __init__(self, folder: Path, **form: Any) -> None:
        self.task_type = KnowledgeProbing(InputForm(**{"max_length": 32, "template": WORDING, **form}))
        self.model, self.newly_initialized = self.task_type.load_model(folder, None)
        self.model.train(mode=False)
        self.reader = self.task_type.load_reader(folder)
        self.tokenizer = self.reader.tokenizer

    def encode(self, rows: list[dict[str, str]]) -> list[dict[str, Any]]:
        return self.task_type.encode_examples(self.reader, rows, [row["label"] for row in rows], None)

    def read(self, ids: list[int]) -> list[str]:
        return [
            f"P{-number}" if number < 0 else self.tokenizer.convert_ids_to_tokens(number) for number in ids
        ]

    def collate(self, rows: list[dict[str, str]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.task_type.build_collator(self.reader)(self.encode(rows))
        return batch


# What the base reads


def test_a_masked_base_reads_a_mask(base: Base) -> None:
    loaded = Loaded(base("bert"))
    (row,) = loaded.encode([{"text": "old riverton", "label": "spain"}])
    assert loaded.read(row["input_ids"]) == [
        *("[CLS]", "old", "riverton", "is", "located", "in", "[MASK]", ".", "[SEP]")
    ]
    spain = loaded.tokenizer.convert_tokens_to_ids("spain")
    assert row["labels"] == [-100] * 6 + [spain] + [-100] * 2
    assert loaded.newly_initialized == frozenset()


def test_white_space_before_a_mask_belongs_to_the_object(base: Base) -> None:
    loaded = Loaded(base("roberta"))
    (row,) = loaded.encode([{"text": "old riverton", "label": "spain"}])
    assert "".join(loaded.read(row["input_ids"])) == "<s>oldĠrivertonĠisĠlocatedĠin<mask>Ġ.</s>"
    assert loaded.read([number for number in row["labels"] if number != -100]) == ["Ġspain"]
    closely = Loaded(base("roberta"), template="{text} ({label})")
    (row,) = closely.encode([{"text": "riverton", "label": "spain"}])
    assert closely.read([number for number in row["labels"] if number != -100]) == ["spain"]


def test_a_base_that_reads_from_left_to_right_ends_with_the_object(base: Base) -> None:
    loaded = Loaded(base("gpt2"))
    (row,) = loaded.encode([{"text": "old riverton", "label": "spain"}])
    assert "".join(loaded.read(row["input_ids"])) == "<s>oldĠrivertonĠisĠlocatedĠinĠspain"
    assert row["labels"] == [-100, row["input_ids"][-1]]
    batch = loaded.collate([{"text": "old", "label": "spain"}, {"text": "new old lakeby", "label": "chile"}])
    assert batch["logits_to_keep"].tolist() == [-2, -1]
    assert batch["attention_mask"].sum(1).tolist() == [6, 8]
    assert batch["position_ids"].tolist() == [[0, 0, 0, 1, 2, 3, 4, 5], list(range(8))]
    assert torch.equal(batch["labels"][:, -1], batch["input_ids"][:, -1])


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("bert", "[CLS] P1 P2 old riverton P3 is located in P4 [MASK] . [SEP]"),
        ("roberta", "<s> P1 P2 Ġold Ġriverton P3 Ġis Ġlocated Ġin P4 <mask> Ġ. </s>"),
        ("gpt2", "<s> P1 P2 Ġold Ġriverton P3 Ġis Ġlocated Ġin P4 Ġspain"),
    ],
)
def test_soft_tokens_stand_where_the_template_says(base: Base, style: str, expected: str) -> None:
    loaded = Loaded(base(style), soft_template=SOFT)
    (row,) = loaded.encode([{"text": "old riverton", "label": "spain"}])
    assert " ".join(loaded.read(row["input_ids"])) == expected


@pytest.mark.parametrize("style", STYLES)
def test_objects_of_several_tokens_are_left_out(base: Base, style: str) -> None:
    loaded = Loaded(base(style))
    rows = [
        {"text": "riverton", "label": "united states"},
        {"text": "lakeham", "label": "chile"},
        {"text": "woodby", "label": "zanzibar"},
    ]
    (kept,) = loaded.encode(rows)
    assert "chile" in loaded.read([number for number in kept["labels"] if number != -100])[0]
    assert loaded.encode([]) == []
    with pytest.raises(TrainingError, match="no object of 2 rows is one token"):
        loaded.encode([rows[0], rows[2]])


@pytest.mark.parametrize("style", STYLES)
def test_a_long_subject_is_cut(base: Base, style: str) -> None:
    loaded = Loaded(base(style), max_length=12)
    (row,) = loaded.encode([{"text": "old " * 20 + "riverton", "label": "spain"}])
    assert len(row["input_ids"]) == 12
    assert "located" in "".join(loaded.read(row["input_ids"]))
    short = Loaded(base(style), max_length=4)
    with pytest.raises(TrainingError, match="without any text"):
        short.encode([{"text": "old", "label": "spain"}])


# The loss


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("soft_template", [None, SOFT])
def test_the_loss_is_the_cross_entropy_of_the_objects(
    base: Base, style: str, soft_template: str | None
) -> None:
    loaded = Loaded(base(style), soft_template=soft_template)
    if soft_template is not None:
        torch.manual_seed(1)
        method = METHODS["p-tuning"]({"template": soft_template}, loaded.task_type.peft_task_type)
        method.adapt(loaded.model, frozenset())
        loaded.model.train(mode=False)
    rows = [*write_rows()[:5], {"text": "old new great lakeby", "label": "chile"}]
    with torch.no_grad():
        loss = loaded.model(**loaded.collate(rows)).loss
        each = []
        for features in loaded.encode(rows):
            ids = features["input_ids"]
            if style == "gpt2":
                logits = loaded.model(input_ids=torch.tensor([ids])).logits[0, -2]
                answer = ids[-1]
            else:
                (place,) = [index for index, label in enumerate(features["labels"]) if label != -100]
                logits = loaded.model(input_ids=torch.tensor([ids])).logits[0, place]
                answer = features["labels"][place]
            each.append(functional.cross_entropy(logits, torch.tensor(answer)))
    torch.testing.assert_close(loss, torch.stack(each).mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("style", STYLES)
def test_soft_tokens_are_the_vectors_that_the_base_reads(base: Base, style: str) -> None:
    loaded = Loaded(base(style), soft_template=SOFT)
    plain = Loaded(base(style)).model
    method = METHODS["p-tuning"](
        {"template": SOFT, "encoder": "lstm", "hidden_size": 8}, "FEATURE_EXTRACTION"
    )
    method.adapt(loaded.model, frozenset())
    loaded.model.train(mode=False)
    (row,) = loaded.encode([{"text": "old riverton", "label": "spain"}])
    ids = torch.tensor([row["input_ids"]])
    soft: Any = loaded.model.get_submodule("soft_tokens")
    with torch.no_grad():
        words = plain.get_input_embeddings()(ids.clamp(min=0))
        for place, vector in zip((1, 2, 5, 9), soft.compute(), strict=True):
            words[0, place] = vector
        by_hand = plain(inputs_embeds=words).logits
        assert torch.equal(loaded.model(input_ids=ids).logits, by_hand)
        # Without them, what is left is read as if they were padding.
        with method.without_tokens(loaded.model):
            inside = loaded.model(input_ids=ids).logits
        hidden = plain(inputs_embeds=words, attention_mask=(ids >= 0).long()).logits
    kept = ids[0] >= 0
    torch.testing.assert_close(inside[0, kept], hidden[0, kept], rtol=0, atol=1e-5)
    assert not torch.allclose(inside[0, kept], by_hand[0, kept])


# Predictions


@pytest.mark.parametrize("style", STYLES)
def test_a_prediction_is_the_likeliest_token(base: Base, style: str) -> None:
    loaded = Loaded(base(style))
    rows = [{"text": "riverton"}, {"text": "old new great riverton"}, {"text": "little woodby"}]
    done: list[int] = []
    found = loaded.task_type.predict(loaded.model, loaded.reader, rows, None, done.append)
    assert done == [3]
    assert [len(prediction["top"]) for prediction in found] == [10] * 3
    for row, prediction in zip(rows, found, strict=True):
        text = WORDING.format(text=row["text"], label=loaded.tokenizer.mask_token)
        if style == "gpt2":
            text = text[: text.index("<mask>")].rstrip()
        if style == "roberta":
            # RoBERTa's own tokeniser does so: the mask swallows the white space before it.
            text = text.replace(" <mask>", "<mask>")
        ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
        place = -1 if style == "gpt2" else int((ids[0] == loaded.tokenizer.mask_token_id).nonzero())
        with torch.no_grad():
            shares = loaded.model(input_ids=ids).logits[0, place].softmax(-1)
        best = shares.topk(10)
        assert prediction["score"] == pytest.approx(float(best.values[0]), rel=1e-4)
        assert [share for _, share in prediction["top"]] == pytest.approx(best.values.tolist(), rel=1e-4)
        assert prediction["label"] == loaded.tokenizer.decode(best.indices[:1]).strip()
    assert json.loads(json.dumps(found)) == found
    shown = loaded.task_type.describe_prediction({"label": "spain", "score": 0.614, "top": []})
    assert shown == "spain (61%)"


@pytest.mark.parametrize("style", STYLES)
def test_outputs_do_not_depend_on_the_rows_beside(base: Base, style: str) -> None:
    loaded = Loaded(base(style))
    rows = [{"text": "riverton"}, {"text": "old new great riverton"}]
    together = loaded.task_type.compute_outputs(loaded.model, loaded.reader, rows, None, lambda _: None)
    alone = [
        loaded.task_type.compute_outputs(loaded.model, loaded.reader, [row], None, lambda _: None)[0]
        for row in rows
    ]
    assert together.shape == (2, 32)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 1e-2


# Metrics


def predict(*tokens: str) -> dict[str, Any]:
    return {"label": tokens[0], "score": 0.5, "top": [[token, 0.1] for token in tokens]}


def test_metrics_look_at_ranks() -> None:
    task_type = KnowledgeProbing(InputForm(max_length=32, template=WORDING))
    targets = ["Norway", ("Spain", "Chile"), "France", "united states"]
    predictions = [
        predict("norway", "spain"),
        predict("peru", "chile", "spain"),
        predict("italy"),
        predict("states"),
    ]
    assert task_type.compute_metrics(list(task_type.metrics), targets, predictions) == {
        "p_at_1": 0.25,
        "p_at_10": 0.5,
        "mrr": pytest.approx((1 + 0.5) / 4),
    }
    scorer = task_type.metrics["p_at_1"](targets, predictions)
    assert scorer(np.array([0, 0, 1])) == pytest.approx(2 / 3)
    assert task_type.primary == "p_at_1"


def test_a_subject_with_several_objects_is_asked_once() -> None:
    task_type = KnowledgeProbing(InputForm(max_length=32, template=WORDING))
    rows = [{"text": "x"}, {"text": "y"}, {"text": "x"}, {"text": "x"}]
    assert task_type.group_targets(rows, ["a", "b", "c", "a"]) == (
        [{"text": "x"}, {"text": "y"}],
        [("a", "c"), ("b",)],
    )


def test_the_plot_shows_the_precision_at_each_rank() -> None:
    from matplotlib.figure import Figure

    task_type = KnowledgeProbing(InputForm(max_length=32, template=WORDING))
    axes = Figure().subplots()
    task_type.plot_predictions(axes, ["a", "b"], [predict("a"), predict("x", "b")])
    (line,) = axes.lines
    assert list(line.get_ydata())[:3] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("raw", ["", "  ", 3, None, 2.5])
def test_what_is_no_object(raw: object) -> None:
    task_type = KnowledgeProbing(InputForm(max_length=32, template=WORDING))
    assert task_type.parse_label(" Norway ") == "Norway"
    with pytest.raises(ValueError, match="is not the name of an object"):
        task_type.parse_label(raw)


# What is refused


def list_faults(
    template: str | None, soft: str | None = None, *, kind: str = "knowledge-probing", **columns: str
) -> list[tuple[str, str]]:
    data = {"source": "x.jsonl", "columns": columns} | ({} if template is None else {"template": template})
    method = {"name": "p-tuning"} | ({} if soft is None else {"template": soft})
    document = {"name": "x", "kind": kind, "base": {"model": "./base"}, "data": data, "method": method}
    _, faults = inspect_task(document)
    return [(fault.where, fault.advice) for fault in faults]


@pytest.mark.parametrize(
    ("template", "soft", "where", "what"),
    [
        (None, None, "data.template", "is missing: write what the base reads"),
        ("{text} is located in", None, "data.template", "has no {label}, the place of the object"),
        ("It is in {label} .", None, "data.template", "has no {text}, the place of the subject"),
        ("{text} {label} {label}", None, "data.template", "has {label} more than once"),
        ("{text} {object}", None, "data.template", "there is no {object}"),
        ("{text} {label", None, "data.template", "expected '}'"),
        ("{text} {text_pair} {label}", None, "data.template", "data.columns names no text_pair"),
        ("{text} [P] {label}", None, "data.template", "put them into the template of p-tuning"),
        (WORDING, "[P] {text} is in {label} .", "method.template", "has other words than data.template"),
    ],
)
def test_templates_that_make_no_sense(template: str | None, soft: str | None, where: str, what: str) -> None:
    ((found, told),) = list_faults(template, soft)
    assert found == where
    assert what in told


def test_templates_that_make_sense() -> None:
    assert list_faults(WORDING, SOFT) == []
    assert list_faults("{text} and {text_pair}: {label}", text_pair="other") == []
    ((_, told),) = list_faults(WORDING, text_pair="other")
    assert "has no {text_pair}, which data.columns names" in told


def test_templates_of_kinds_with_a_head() -> None:
    for template in ("[P]*5 {text}", "{text} [P] It was [P]"):
        assert list_faults(None, template, kind="text-classification") == []
    assert list_faults(None, "[P] {text} [P] {text_pair}", kind="regression", text_pair="other") == []
    for template in ("[P] {label}", "[P] {text} {text}", "[P] {text} {text_pair}", "{text} [P] {label}"):
        ((where, told),) = list_faults(None, template, kind="text-classification")
        assert where == "method.template"
        assert "must name {text}, each once and nothing else" in told


def make_spec(folder: Path | str, method: dict[str, Any] | None = None, **data: Any) -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": "tiny",
            "kind": "knowledge-probing",
            "base": {"model": str(folder)},
            "data": {"source": "x.jsonl", "template": WORDING, "max_length": 24} | data,
            "method": method or {"name": "lora", "r": 4, "targets": "all-linear"},
            "train": {"epochs": 12, "batch_size": 8, "learning_rate": 2e-2, "precision": "fp32"},
            "evaluate": {"resamples": 100},
        }
    )


def test_bases_that_fill_in_nothing(base: Base, tmp_path: Path) -> None:
    T5Config(vocab_size=99, d_model=32, num_layers=1, num_heads=2).save_pretrained(tmp_path)
    with pytest.raises(InvalidTaskError, match="a t5 neither fills in masks nor predicts the next token"):
        check_base(make_spec(tmp_path, {"name": "prompt-tuning"}), tmp_path)
    # The body of BERT alone has no output layer that was trained.
    with pytest.raises(BaseModelError, match=r"its weights lack .* parameters of BertForMaskedLM"):
        Loaded(base("bert-body"))


def test_a_base_that_reads_from_left_to_right_wants_the_object_last(base: Base) -> None:
    spec = make_spec(base("gpt2"), {"name": "prompt-tuning"}, template="In {label} lies {text} .")
    with pytest.raises(InvalidTaskError, match=r"nothing behind \{label\}; put \{text\} before it"):
        check_base(spec, base("gpt2"))
    check_base(spec.model_copy(update={"base": make_spec(base("bert")).base}), base("bert"))


# From the data to a prediction


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in write_rows()), "utf-8")
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "data"
    card = prepare_data(resolve_task(make_spec("./anywhere", source=str(source))), folder)
    assert card.labels is None
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    yield Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")


@pytest.mark.parametrize(
    ("style", "method"),
    [
        ("bert", {"name": "lora", "r": 4, "targets": "all-linear"}),
        ("bert", {"name": "p-tuning", "template": SOFT}),
        ("roberta", {"name": "p-tuning", "template": SOFT, "encoder": "lstm"}),
        ("gpt2", {"name": "p-tuning", "template": SOFT}),
        ("gpt2", {"name": "prompt-tuning", "tokens": 4}),
    ],
)
def test_a_task_goes_all_the_way(
    base: Base,
    source: Path,
    prepared: Path,
    registry: Registry,
    tmp_path: Path,
    style: str,
    method: dict[str, Any],
) -> None:
    spec = make_spec(base(style), method, source=str(source))
    before = score_zero_shot(resolve_task(spec), prepared)
    summary = finetune(
        resolve_task(spec), prepared, tmp_path / "candidate", checkpoints=tmp_path / "checkpoints"
    )
    report = evaluate(
        resolve_task(spec), prepared, tmp_path / "candidate", tmp_path / "evaluation", registry=registry
    )
    value = report.evaluation.headline.value
    assert report.evaluation.primary == "p_at_1"
    assert before.examples == report.evaluation.examples
    assert before.headline.value < 0.2
    # The most frequent country is right for two in three.
    assert value >= 0.5
    plan = plan_task(spec)
    assert plan.parameters == summary.parameters
    weights = tmp_path / "candidate" / "adapter" / WEIGHTS_NAME
    assert plan.adapter_bytes == weights.stat().st_size

    decision = Decision(passed=True, reasons=(), judged_champion=None)
    registration = register(
        resolve_task(spec),
        tmp_path / "candidate",
        report,
        decision,
        registry=registry,
        index=None,
        details={},
    )
    adapter_id = registration.event.adapter_id
    loaded = load_adapter(registry.fetch(adapter_id), expected_id=adapter_id)
    assert loaded.task_type.form == InputForm.of(spec)
    frame = AdapterModel(loaded).predict(["old riverton", "upper lakeham"])
    assert list(frame.columns) == ["label", "score", "top"]
    assert set(frame["label"]) <= set(COUNTRIES)


@pytest.mark.parametrize("task", ["text-classification", "regression"])
def test_a_head_that_was_never_trained_scores_nothing(base: Base, tmp_path: Path, task: str) -> None:
    labels: list[object] = ["yes", "no"] if task == "text-classification" else [0.5, 1.5]
    rows = [{"text": f"riverton {index}", "label": labels[index % 2]} for index in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    document = make_spec(base("bert"), source=str(tmp_path / "rows.jsonl")).model_dump()
    document["kind"], document["data"]["template"] = task, None
    spec = TaskSpec.model_validate(document)
    prepare_data(resolve_task(spec), tmp_path / "data")
    with pytest.raises(TrainingError, match="there is nothing to score"):
        score_zero_shot(resolve_task(spec), tmp_path / "data")


def test_the_plan_counts_only_the_outputs_that_are_needed(base: Base) -> None:
    tokens = 24
    wide, narrow = (make_spec(base(style), {"name": "prompt-tuning"}) for style in ("bert", "gpt2"))
    parts = {
        style: {part.name: part.high for part in plan_task(spec).training.parts}
        for style, spec in (("bert", wide), ("gpt2", narrow))
    }
    sizes = {style: AutoConfig.from_pretrained(base(style)).vocab_size for style in ("bert", "gpt2")}
    shares = {style: parts[style]["logits"] / sizes[style] for style in parts}
    assert shares["bert"] == pytest.approx(shares["gpt2"] * tokens / 2, rel=0.01)
