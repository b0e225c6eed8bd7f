"""Questions about contexts: windows, positions, predictions, and every step on a tiny base."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    ByT5Tokenizer,
    GPT2Config,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
    T5GemmaConfig,
)
from transformers.utils import logging as transformers_logging

from lorry_components.inference import load_adapter
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.gate.step import decide
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.steps.register.step import register
from lorry_components.task_types import TASK_TYPES, InputForm, TaskType
from lorry_components.task_types.question_answering.span_extraction import rank_spans
from lorry_components.task_types.question_answering.windows import Window, compute_overlap, cut_windows
from lorry_components.tasks.base_checks import check_base
from lorry_components.tasks.definition import load_task_file
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import BaseModelError, InvalidDataError, InvalidTaskError
from lorry_registry.manifest import WEIGHTS_NAME
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
CITIES = ("paris", "rome", "oslo", "new york")
FILLERS = ("we", "then", "go", "to", "see", "and", "by", "train", "in", "may")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ("where", "what", "city", "?", ".", *FILLERS, *(word for name in CITIES for word in name.split()))
VOCABULARY = {
    word: number
    for number, word in enumerate(
        [*SPECIAL.values(), *WORDS, *LETTERS.upper(), *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    )
}
SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
}
LENGTH = 24


@pytest.fixture(autouse=True, scope="session")
def calm_libraries() -> None:
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def build_tokenizer(pair: str = "[CLS] $A [SEP] $B:1 [SEP]:1", **options: Any) -> PreTrainedTokenizerBase:
    words = Tokenizer(models.WordPiece(VOCABULARY, unk_token=SPECIAL["unk_token"]))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(SPECIAL[name], VOCABULARY[SPECIAL[name]]) for name in ("cls_token", "sep_token")]
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **SPECIAL,
        **options,
    )


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    AutoModel.from_config(BertConfig(**SIZES)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def task_type() -> TaskType:
    return TASK_TYPES["question-answering"](InputForm(LENGTH, max_target=4, has_pair=True))


def write_context(generator: np.random.Generator, words: int, *cities: str) -> str:
    text = [str(word) for word in generator.choice(FILLERS, size=words)]
    for city in cities:
        text.insert(int(generator.integers(0, len(text) + 1)), city)
    return " ".join(text)


def write_rows(count: int, *, least: int = 4, most: int = 40) -> Iterator[dict[str, Any]]:
    """Yield rows as SQuAD has them: half of the contexts are longer than a window, a fifth has no answer."""
    generator = np.random.default_rng(3)
    for number in range(count):
        city = CITIES[number % len(CITIES)]
        words = int(generator.integers(least, most))
        context = write_context(generator, words, *([] if number % 5 == 0 else [city]))
        answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
        if number % 5:
            answers = {"text": [city, city], "answer_start": [context.index(city)] * 2}
        yield {"question": "what city ?", "context": context, "answers": answers, "id": str(number)}


def read(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    return [{"text": row["question"], "text_pair": row["context"]} for row in rows]


# Windows


def test_windows_cover_a_context_and_overlap(tokenizer: PreTrainedTokenizerBase) -> None:
    context = " ".join(itertools.islice(itertools.cycle(FILLERS), 61))
    rows = [{"text": "where ?", "text_pair": context}, {"text": "what city ?", "text_pair": "to paris ."}]
    first = [window for window in cut_windows(tokenizer, rows, LENGTH) if window.row == 0]
    assert len(first) > 3
    covered: list[tuple[int, int]] = []
    for window in first:
        assert len(window.features["input_ids"]) <= LENGTH
        assert tokenizer.decode(window.features["input_ids"][:4]) == "[CLS] where ? [SEP]"
        spans = [(int(start), int(end)) for start, end in window.characters]
        words = tokenizer.convert_ids_to_tokens(window.features["input_ids"][window.first :])
        assert [context[start:end] for start, end in spans] == words[: len(spans)]
        shared = [span for span in spans if span in covered]
        assert len(shared) == (compute_overlap(LENGTH) if covered else 0)
        covered += [span for span in spans if span not in covered]
    assert [context[start:end] for start, end in covered] == context.split()
    (second,) = [window for window in cut_windows(tokenizer, rows, LENGTH) if window.row == 1]
    assert second.locate(3, 8) == (second.first + 1, second.first + 1)


def test_positions_are_those_of_the_answer(task_type: TaskType, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = list(write_rows(60))
    labels = [task_type.parse_label(row["answers"]) for row in rows]
    encoded = task_type.encode_examples(tokenizer, read(rows), labels, None)
    windows = list(cut_windows(tokenizer, read(rows), LENGTH))
    assert len(encoded) == len(windows) > len(rows)
    answered = set()
    for window, features in zip(windows, encoded, strict=True):
        start, end = features["start_positions"], features["end_positions"]
        words = tokenizer.convert_ids_to_tokens(features["input_ids"])[start : end + 1]
        expected = rows[window.row]["answers"]["text"][:1]
        if words == ["[CLS]"]:
            here = slice(window.first, window.first + len(window.characters))
            seen = tokenizer.decode(features["input_ids"][here])
            assert not expected or expected[0] not in seen
        else:
            assert [" ".join(words)] == expected
            answered.add(window.row)
    assert answered == {number for number in range(60) if number % 5}


def test_an_answer_that_a_window_cuts_is_not_in_it(tokenizer: PreTrainedTokenizerBase) -> None:
    context = "we go to new york"
    (window,) = cut_windows(tokenizer, [{"text": "where ?", "text_pair": context}], LENGTH)
    part = Window(0, window.features, 0, window.first, window.characters[:4])
    assert window.locate(9, 17) == (window.first + 3, window.first + 4)
    assert part.locate(9, 17) == (0, 0)
    assert Window(0, window.features, 0, window.first + 4, window.characters[4:]).locate(9, 17) == (0, 0)
    # A piece of a word is the word.
    assert window.locate(10, 11) == (window.first + 3, window.first + 3)


def test_the_token_for_no_answer_may_come_last() -> None:
    tokenizer = build_tokenizer("$A [SEP] $B [SEP] [CLS]")
    (window,) = cut_windows(tokenizer, [{"text": "where ?", "text_pair": "to rome"}], LENGTH)
    assert window.nothing == len(window.features["input_ids"]) - 1
    bare = build_tokenizer("$A [SEP] $B [SEP]")
    (window,) = cut_windows(bare, [{"text": "where ?", "text_pair": "to rome"}], LENGTH)
    assert window.nothing == 0


def test_batches_are_padded_behind_whatever_the_base_does_elsewhere(task_type: TaskType) -> None:
    tokenizer = build_tokenizer(padding_side="left")
    rows = [{"text": "where ?", "text_pair": "to rome"}, {"text": "where ?", "text_pair": "we go to paris"}]
    labels = [task_type.parse_label("rome"), task_type.parse_label("paris")]
    batch = task_type.build_collator(tokenizer)(task_type.encode_examples(tokenizer, rows, labels, None))
    assert batch["attention_mask"].tolist()[0] == [1, 1, 1, 1, 1, 1, 1, 0, 0]
    chosen = batch["input_ids"][torch.arange(2), batch["start_positions"]]
    assert tokenizer.convert_ids_to_tokens(chosen.tolist()) == ["rome", "paris"]
    assert set(batch) == {
        *("input_ids", "token_type_ids", "attention_mask"),
        *("start_positions", "end_positions"),
    }


def test_a_question_that_leaves_no_room_is_refused(
    task_type: TaskType, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [{"text": "where " * count + "?", "text_pair": "we go to rome " * 20} for count in (2, 8, 9, 30)]
    # Of 24 tokens 3 are special, and 12 are the least for the context.
    task_type.check_rows(tokenizer, rows[:2])
    with pytest.raises(InvalidDataError) as caught:
        task_type.check_rows(tokenizer, rows)
    assert "2 faults" in str(caught.value)
    assert "has 10 tokens; beside a context there is room for 9 in data.max_length 24" in str(caught.value)
    assert "shorten them, or train with data.max_length 68 or more" in caught.value.todo
    longer = TASK_TYPES[task_type.name](InputForm(68, has_pair=True))
    longer.check_rows(tokenizer, rows)
    with pytest.raises(InvalidDataError):
        task_type.encode_examples(tokenizer, rows, [task_type.parse_label("rome")] * 4, None)
    with pytest.raises(InvalidDataError):
        task_type.predict(Oracle(tokenizer, ()), tokenizer, rows, None, ignore)
    # The probe's are cut instead: its numbers only tell models apart.
    outputs = task_type.compute_outputs(Oracle(tokenizer, ("rome",)), tokenizer, rows, None, ignore)
    assert outputs.shape == (4, 6)


@pytest.mark.parametrize("max_length", [4, 8, 12, 16, 33, 64])
def test_the_longest_question_still_leaves_windows_that_move_on(
    tokenizer: PreTrainedTokenizerBase, max_length: int
) -> None:
    task_type = TASK_TYPES["question-answering"](InputForm(max_length, has_pair=True))
    room = max_length - 3 - 2 * (max_length // 4)
    row = {"text": " ".join(["go"] * max(room, 1)), "text_pair": "we go " * 40}
    if room < 1:
        with pytest.raises(InvalidDataError, match="room for 0"):
            task_type.check_rows(tokenizer, [row])
        return
    task_type.check_rows(tokenizer, [row])
    windows = list(cut_windows(tokenizer, [row], max_length))
    assert 2 <= len(windows) <= 80
    assert windows[-1].characters[-1, 1] == len("we go " * 40) - 1


# Predictions


class Oracle(nn.Module):
    """Scores 5 where an answer starts or ends, 2 at the token for no answer, and 0 elsewhere."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        scores = torch.zeros(2, len(VOCABULARY))
        scores[:, tokenizer.convert_tokens_to_ids("[CLS]")] = 1.0
        # Padding would win if it were looked at.
        scores[:, 0] = 9.0
        for answer in answers:
            words = answer.split()
            scores[0, VOCABULARY[words[0]]] = 2.5
            scores[1, VOCABULARY[words[-1]]] = 2.5
        self.scores = scores
        self.batches: list[int] = []

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        self.batches.append(len(input_ids))
        return SimpleNamespace(start_logits=self.scores[0][input_ids], end_logits=self.scores[1][input_ids])


def ignore(_done: int) -> None:
    pass


def test_answers_are_cut_out_of_the_window_that_has_them(
    task_type: TaskType, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = list(write_rows(400))
    told: list[int] = []
    oracle = Oracle(tokenizer, CITIES)
    predictions = task_type.predict(oracle, tokenizer, read(rows), None, told.append)
    for row, prediction in zip(rows, predictions, strict=True):
        answer = row["answers"]["text"][0] if row["answers"]["text"] else ""
        assert prediction["answer"] == answer == row["context"][prediction["start"] : prediction["end"]]
        assert 0.0 < prediction["score"] <= 1.0
        assert (prediction["no_answer"] == prediction["score"]) == (answer == "")
        if answer:
            assert prediction["start"] == row["answers"]["answer_start"][0]
    assert told == sorted(told)
    assert told[-1] == 400
    assert len(told) > 5
    assert max(oracle.batches) <= 32
    labels = [task_type.parse_label(row["answers"]) for row in rows]
    assert task_type.compute_metrics(["f1", "exact_match"], labels, predictions) == {
        "f1": 1.0,
        "exact_match": 1.0,
    }
    assert task_type.predict(oracle, tokenizer, [], None, ignore) == []


def test_an_answer_has_no_more_tokens_than_the_task_says(tokenizer: PreTrainedTokenizerBase) -> None:
    row = {"text": "where ?", "text_pair": "paris we go to oslo then rome"}
    oracle = Oracle(tokenizer, ["paris to rome"])
    for most, answer in ((7, row["text_pair"]), (6, "paris"), (1, "paris")):
        task_type = TASK_TYPES["question-answering"](InputForm(LENGTH, max_target=most, has_pair=True))
        (prediction,) = task_type.predict(oracle, tokenizer, [row], None, ignore)
        # Where only one of both ends is to be had, there are several equally good ones: the first.
        assert prediction["answer"].startswith(answer)
        assert len(prediction["answer"].split()) <= most


def test_shares_are_of_all_windows(task_type: TaskType, tokenizer: PreTrainedTokenizerBase) -> None:
    row = {"text": "where ?", "text_pair": "rome " + "we go " * 20 + "oslo"}
    (prediction,) = task_type.predict(Oracle(tokenizer, ["rome", "oslo"]), tokenizer, [row], None, ignore)
    # Of two that are equally likely the first. Six of at most four words have one right end; 20 count.
    assert prediction["answer"] == "rome"
    odds = np.exp([5.0] * 2 + [2.5] * 6 + [0.0] * 12 + [2.0])
    assert prediction["score"] == pytest.approx(odds[0] / odds.sum(), rel=1e-4)
    assert prediction["no_answer"] == pytest.approx(odds[-1] / odds.sum(), rel=1e-4)


def test_a_context_without_words_has_no_answer(
    task_type: TaskType, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [{"text": "where ?", "text_pair": " \t "}]
    (prediction,) = task_type.predict(Oracle(tokenizer, CITIES), tokenizer, rows, None, ignore)
    assert prediction == {"answer": "", "score": 1.0, "start": 0, "end": 0, "no_answer": 1.0}
    outputs = task_type.compute_outputs(Oracle(tokenizer, CITIES), tokenizer, rows, None, ignore)
    assert outputs.tolist() == [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("longest", [1, 3, 50])
def test_the_best_spans_are_those_of_trying_all(longest: int) -> None:
    generator = np.random.default_rng(5)
    starts, ends = generator.normal(size=(2, 30)).astype(np.float32)
    places = np.arange(22, dtype=np.int32)
    window = Window(0, {}, 0, 4, np.stack([places * 2, places * 2 + 1], axis=1))
    everything = {
        (2 * first, 2 * last + 1): float(starts[4 + first] + ends[4 + last])
        for first in range(22)
        for last in range(first, min(22, first + longest))
    }
    found = dict(rank_spans(window, starts, ends, longest))
    assert len(found) == 20
    best = sorted(everything.values(), reverse=True)[:20]
    assert sorted(found.values(), reverse=True) == pytest.approx(best)
    assert all(everything[span] == pytest.approx(score) for span, score in found.items())


def test_the_probes_numbers_depend_on_the_row_and_the_model_alone(
    task_type: TaskType, base: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = read(list(write_rows(12)))
    model, newly_initialized = task_type.load_model(base, None)
    assert newly_initialized == {"qa_outputs.weight", "qa_outputs.bias"}
    model.eval()
    together = task_type.compute_outputs(model, tokenizer, rows, None, ignore)
    assert together.shape == (12, 6)
    assert np.isfinite(together).all()
    for number, row in enumerate(rows):
        alone = task_type.compute_outputs(model, tokenizer, [row], None, ignore)
        np.testing.assert_allclose(alone[0], together[number], atol=1e-6)
    with torch.no_grad():
        model.get_parameter("bert.encoder.layer.1.output.dense.weight")[0] += 0.1
    assert np.abs(task_type.compute_outputs(model, tokenizer, rows, None, ignore) - together).max() > 1e-3


# Bases


def check(folder: Path, config: Any) -> list[str]:
    config.save_pretrained(folder)
    task_type = TASK_TYPES["question-answering"](InputForm(LENGTH, has_pair=True))
    faults = [*task_type.check_base(AutoConfig.from_pretrained(folder)), *task_type.check_folder(folder)]
    return [fault.advice for fault in faults]


def test_bases_with_a_head_for_spans(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.save_pretrained(tmp_path)
    assert check(tmp_path, BertConfig(**SIZES)) == []
    assert check(tmp_path, RobertaConfig(**SIZES)) == []
    assert check(tmp_path, T5Config(vocab_size=len(VOCABULARY), d_model=32)) == []
    (told,) = check(tmp_path, GPT2Config(n_embd=32, n_layer=2, n_head=2))
    assert told.startswith("gpt2 reads from left to right")
    (told,) = check(tmp_path, T5GemmaConfig())
    assert told.startswith("transformers has no such head for t5gemma; choose an encoder")


def test_a_tokenizer_without_characters_is_refused(tmp_path: Path, task_type: TaskType) -> None:
    slow = ByT5Tokenizer()
    slow.save_pretrained(tmp_path)
    (told,) = check(tmp_path, T5Config(vocab_size=400, d_model=32))
    assert told.startswith("its tokenizer ByT5Tokenizer does not say from which characters a token comes")
    assert "name a base with a tokenizer.json" in told
    rows = [{"text": "where ?", "text_pair": "to rome"}]
    with pytest.raises(BaseModelError, match="ByT5Tokenizer"):
        task_type.encode_examples(slow, rows, [task_type.parse_label("rome")], None)
    with pytest.raises(BaseModelError, match="ByT5Tokenizer"):
        task_type.predict(Oracle(build_tokenizer(), ()), slow, rows, None, ignore)


# Task files and steps


DOCUMENT: dict[str, Any] = {
    "name": "cities",
    "kind": "question-answering",
    "data": {
        "columns": {"text": "question", "text_pair": "context", "label": "answers"},
        "split": {"validation": 0.15, "test": 0.15, "seed": 1},
        "max_length": LENGTH,
        "max_target": 4,
    },
    "method": {"name": "lora", "r": 8, "targets": "all-linear"},
    "train": {"epochs": 5, "batch_size": 16, "learning_rate": 1e-2, "precision": "fp32"},
    "evaluate": {"resamples": 100},
}
MakeSpec = Callable[..., TaskSpec]


@pytest.fixture
def make_spec(tmp_path: Path, base: Path) -> MakeSpec:
    def make(rows: Sequence[dict[str, Any]] | None = None, **sections: Any) -> TaskSpec:
        source = tmp_path / "rows.jsonl"
        lines = rows if rows is not None else list(write_rows(240))
        source.write_text("".join(f"{json.dumps(row)}\n" for row in lines), "utf-8")
        document = {name: dict(part) if isinstance(part, dict) else part for name, part in DOCUMENT.items()}
        document |= {"base": {"model": str(base)}}
        document["data"]["source"] = str(source)
        for name, given in sections.items():
            document[name] = document[name] | given
        return TaskSpec.model_validate(document)

    return make


def write_task(folder: Path, **changes: Any) -> Path:
    document = DOCUMENT | {"base": {"model": "package:nowhere/model"}} | changes
    path = folder / "task.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(document), "utf-8")
    return path


def test_a_task_file_needs_the_column_of_the_context(tmp_path: Path) -> None:
    data = DOCUMENT["data"] | {"source": "rows.jsonl"}
    assert load_task_file(write_task(tmp_path, data=data)).kind == "question-answering"
    for columns in ({"text": "question", "label": "answers"}, None):
        given = {name: part for name, part in data.items() if name != "columns"}
        given |= {"columns": columns} if columns else {}
        with pytest.raises(InvalidTaskError) as caught:
            load_task_file(write_task(tmp_path, data=given))
        (fault,) = caught.value.faults
        assert "data.columns.text_pair" in str(fault)
        assert "is missing: question-answering needs the column of the context" in fault.what
    with pytest.raises(InvalidTaskError, match="reads its texts as they are"):
        load_task_file(write_task(tmp_path, data=data | {"template": "{text} {label}"}))
    with pytest.raises(InvalidTaskError, match="has no metric 'accuracy'"):
        load_task_file(write_task(tmp_path, data=data, evaluate={"primary": "accuracy"}))


def test_a_base_that_does_not_fit_is_refused_before_training(make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec()
    check_base(spec, Path(spec.base.model))
    folder = tmp_path / "gpt2"
    GPT2Config(n_embd=32, n_layer=2, n_head=2).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    with pytest.raises(InvalidTaskError, match="reads from left to right"):
        check_base(spec, folder)


def test_a_long_question_is_refused_before_training_whatever_its_part(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    rows = list(write_rows(60))
    spec = make_spec(rows)
    card = prepare_data(resolve_task(spec), tmp_path / "data")
    assert card.splits["test"].rows > 1
    rows += [{**row, "question": "where " * 20, "id": f"long {row['id']}"} for row in rows]
    spec = make_spec(rows, train={"epochs": 100})
    prepare_data(resolve_task(spec), tmp_path / "longer")
    with pytest.raises(InvalidDataError) as caught:
        finetune(
            resolve_task(spec),
            tmp_path / "longer",
            tmp_path / "candidate",
            checkpoints=tmp_path / "checkpoints",
        )
    assert "60 faults" in str(caught.value)
    assert not (tmp_path / "candidate" / "training.json").exists()


def test_outputs_of_frozen_layers_may_be_kept(make_spec: MakeSpec, tmp_path: Path) -> None:
    method = {"name": "lora", "r": 4, "targets": ["query", "value"], "layers": 1}
    losses: list[float] = []
    for kept in (False, True):
        train = {"hidden_dropout": 0.0, "cache_frozen_layers": kept, "epochs": 1, "learning_rate": 1e-3}
        spec = make_spec(list(write_rows(60)), method=method, train=train)
        folder = tmp_path / str(kept)
        prepare_data(resolve_task(spec), folder / "data")
        summary = finetune(
            resolve_task(spec), folder / "data", folder / "candidate", checkpoints=folder / "checkpoints"
        )
        losses.append(summary.loss)
    # Not quite: the loss is over all positions of a batch, and those of padding are empty in what is kept.
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)


def test_every_step_on_questions_with_and_without_answers(
    make_spec: MakeSpec, tracking: str, tmp_path: Path
) -> None:
    import mlflow.pyfunc

    spec = make_spec()
    data, candidate = tmp_path / "data", tmp_path / "candidate"
    card = prepare_data(resolve_task(spec), data)
    assert card.labels is None
    assert card.warnings == ()
    # Answers of one word or two, or of none.
    lengths: Any = card.splits["train"].labels
    assert (lengths.min, lengths.max) == (0, 2)
    summary = finetune(resolve_task(spec), data, candidate, checkpoints=tmp_path / "checkpoints")
    assert summary.parameters.head == 66
    registry = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")
    report = evaluate(resolve_task(spec), data, candidate, tmp_path / "evaluation", registry=registry)
    assert report.evaluation.primary == "f1"
    assert report.evaluation.headline.value > 0.9
    assert {len(row) for row in report.probe.outputs} == {6}
    lines = (tmp_path / "evaluation" / "predictions.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["prediction"]["answer"] for line in lines} >= {"", "paris", "new york"}
    registration = register(
        resolve_task(spec),
        candidate,
        report,
        decide(spec.gate, report),
        registry=registry,
        index=MlflowIndex(tracking),
        details={},
    )
    assert registration.event.is_promotion
    found = registry.resolve(spec.name)
    loaded = load_adapter(registry.fetch(found.adapter_id), expected_id=found.adapter_id)
    rows = [
        {"text": "what city ?", "text_pair": "we go " * 30 + "to new york . then in may"},
        {"text": "what city ?", "text_pair": "then we go by train"},
    ]
    predictions = loaded.predictor.predict(rows)
    assert [prediction["answer"] for prediction in predictions] == ["new york", ""]
    assert predictions[0]["start"] == rows[0]["text_pair"].index("new york")
    frame = mlflow.pyfunc.load_model(f"models:/{spec.name}@champion").predict(rows)
    assert frame["answer"].tolist() == ["new york", ""]
    assert frame["start"].tolist() == [prediction["start"] for prediction in predictions]
    # Only a change and the head are stored.
    assert (candidate / "adapter" / WEIGHTS_NAME).stat().st_size < 80_000
