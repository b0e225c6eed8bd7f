"""Kinds that write text: what they train on, what they generate, what they record of a model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from lorry_components.data.rows import join_prediction
from lorry_components.task_types import TASK_TYPES, InputForm, TaskType
from lorry_components.task_types.generation.base import IGNORED, pad
from lorry_registry.errors import BaseModelError
from lorry_registry.tasks.task_spec import GenerateSpec

FAMILIES = ("gpt2", "llama", "gemma3_text", "qwen2", "t5", "mt5", "bart")
ROWS = [
    {"text": "name[Aromi], food[French]"},
    {"text": "name[The Eagle], food[Chinese], area[riverside], and more of it"},
    {"text": "x"},
]
ANSWERS = ["Aromi serves French food.", "The Eagle.", "A long answer that goes on and on. " * 4]
_SEARCH = ("beams", "no_repeat_ngram", "length_penalty")
FindBase = Callable[[str], Path]
FindTokenizer = Callable[[str], PreTrainedTokenizerBase]


def make_task_type(style: str, **options: Any) -> TaskType:
    name = "text-to-text" if style in ("t5", "mt5", "bart") else "text-generation"
    generate = GenerateSpec(**{key: options.pop(key) for key in _SEARCH if key in options})
    return TASK_TYPES[name](InputForm(**({"max_length": 72, "max_target": 16} | options), generate=generate))


def load(style: str, folder: Path, **options: Any) -> tuple[TaskType, Any, PreTrainedTokenizerBase]:
    task_type = make_task_type(style, **options)
    model, newly_initialized = task_type.load_model(folder, None)
    assert not newly_initialized
    return task_type, model.eval(), AutoTokenizer.from_pretrained(folder)


def predict(
    task_type: TaskType, model: Any, tokenizer: Any, rows: Sequence[dict[str, str]] = ROWS
) -> list[str]:
    found = task_type.predict(model, tokenizer, rows, None, lambda _done: None)
    return [prediction["text"] for prediction in found]


# Training


@pytest.mark.parametrize("style", FAMILIES)
def test_only_the_answers_tokens_are_learned(find_tokenizer: FindTokenizer, style: str) -> None:
    task_type, tokenizer = make_task_type(style), find_tokenizer(style)
    features = task_type.encode_examples(tokenizer, ROWS, ANSWERS, None)
    for row, answer in zip(features, ANSWERS, strict=True):
        learned = [label for label in row["labels"] if label != IGNORED]
        assert len(learned) <= 16
        told = tokenizer.decode(learned, skip_special_tokens=True)
        assert answer.startswith(told.strip())
        if task_type.name == "text-generation":
            assert len(row["input_ids"]) == len(row["labels"]) <= 72
            # The prompt is ignored, from the first token on, and the answer is what stands behind it.
            assert row["labels"][: -len(learned)] == [IGNORED] * (len(row["labels"]) - len(learned))
            assert row["input_ids"][-len(learned) :] == learned
        else:
            assert row["labels"] == learned
    ends = [row["labels"][-1] in {*tokenizer.all_special_ids} for row in features]
    # The end is learned where the answer has one: the last was cut.
    assert ends == [True, True, False]


@pytest.mark.parametrize("style", FAMILIES)
def test_padding_changes_no_loss(tiny_base: FindBase, style: str) -> None:
    task_type, model, tokenizer = load(style, tiny_base(style))
    before = len(tokenizer)
    features = task_type.encode_examples(tokenizer, ROWS, ANSWERS, None)
    collate = task_type.build_collator(tokenizer)
    batch = collate(features)
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["attention_mask"].sum(dim=1).tolist() == [len(row["input_ids"]) for row in features]
    with torch.inference_mode():
        together = float(model(**batch).loss)
        alone = [(float(model(**collate([row])).loss), _count(row)) for row in features]
    expected = sum(loss * count for loss, count in alone) / sum(count for _, count in alone)
    assert together == pytest.approx(expected, abs=1e-5)
    # A missing padding token costs no new one: the vocabulary is that of the base.
    assert (tokenizer.pad_token is None) == (style in ("gpt2", "llama"))
    assert len(tokenizer) == before


def _count(row: dict[str, Any]) -> int:
    return sum(label != IGNORED for label in row["labels"])


def test_a_table_is_padded_on_either_side() -> None:
    assert pad([[1], [2, 3]], 9).tolist() == [[1, 9], [2, 3]]
    assert pad([[1], [2, 3]], 9, on_left=True).tolist() == [[9, 1], [2, 3]]


@pytest.mark.parametrize(
    ("raw", "label"), [("a text", "a text"), (" a text\n", "a text"), (42, "42"), ("", "")]
)
def test_an_answer_is_text_or_a_whole_number(raw: object, label: str) -> None:
    assert make_task_type("gpt2").parse_label(raw) == label


@pytest.mark.parametrize("raw", [None, True, 0.5, ["a"], {"a": "b"}, b"a"])
def test_anything_else_is_no_answer(raw: object) -> None:
    with pytest.raises(ValueError, match="is not a text"):
        make_task_type("gpt2").parse_label(raw)


# Prediction


@pytest.mark.parametrize("style", FAMILIES)
def test_what_is_generated_is_the_likeliest_token_each_time(tiny_base: FindBase, style: str) -> None:
    task_type, model, tokenizer = load(style, tiny_base(style))
    found = predict(task_type, model, tokenizer)
    for row, text in zip(ROWS, found, strict=True):
        assert text == generate_slowly(task_type, model, tokenizer, row)
    # Alone, in another order, and a second time: the same.
    assert predict(task_type, model, tokenizer, ROWS[::-1]) == found[::-1]
    assert [predict(task_type, model, tokenizer, [row])[0] for row in ROWS] == found


def generate_slowly(task_type: Any, model: Any, tokenizer: Any, row: dict[str, str]) -> str:
    """Return the likeliest tokens, one after the other, without a cache, a batch, or padding."""
    writer = task_type.build_writer(tokenizer)
    (prompt,) = writer.encode_prompts([row])
    start = [] if task_type.continues else [model.config.decoder_start_token_id]
    made: list[int] = []
    with torch.inference_mode():
        while len(made) < task_type.form.max_target and not (made and made[-1] in writer.stops):
            inputs = torch.tensor([[*prompt, *made] if task_type.continues else prompt])
            further = {} if task_type.continues else {"decoder_input_ids": torch.tensor([[*start, *made]])}
            made.append(int(model(input_ids=inputs, use_cache=False, **further).logits[0, -1].argmax()))
    text: str = writer.decode_answer(made)
    return text


@pytest.mark.parametrize("style", ["gpt2", "t5"])
@pytest.mark.parametrize("most", [1, 3, 16])
def test_no_more_tokens_are_generated_than_an_answer_has(
    tiny_base: FindBase, style: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_type, model, tokenizer = load(style, tiny_base(style), max_target=most)
    generate, made = model.generate, []

    def watch(**inputs: Any) -> torch.Tensor:
        tokens: torch.Tensor = generate(**inputs)
        made.append(tokens.shape[1] - (inputs["input_ids"].shape[1] if style == "gpt2" else 1))
        return tokens

    monkeypatch.setattr(model, "generate", watch)
    predict(task_type, model, tokenizer)
    assert made == [most]


def test_generation_stops_at_the_end(tiny_base: FindBase) -> None:
    task_type, model, tokenizer = load("gpt2", tiny_base("gpt2"))
    assert len(predict(task_type, model, tokenizer)[0]) > 1
    # Whatever goes in, the likeliest token is the end.
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(model.lm_head.weight[tokenizer.eos_token_id] * 100)
    assert predict(task_type, model, tokenizer) == ["", "", ""]


@pytest.mark.parametrize("style", ["gpt2", "t5"])
def test_how_a_base_wants_to_generate_does_not_matter(make_base: FindBase, style: str) -> None:
    folder = make_base(style)
    expected = predict(*load(style, folder))
    GenerationConfig(
        do_sample=True, temperature=5.0, repetition_penalty=3.0, num_beams=2, max_new_tokens=2, min_length=9
    ).save_pretrained(folder)
    assert predict(*load(style, folder)) == expected


@pytest.mark.parametrize("style", ["qwen2", "t5"])
def test_beams_are_searched_as_the_task_says(tiny_base: FindBase, style: str) -> None:
    task_type, model, tokenizer = load(style, tiny_base(style), beams=4)
    found = predict(task_type, model, tokenizer)
    assert found == [predict(task_type, model, tokenizer, [row])[0] for row in ROWS]
    assert found != predict(make_task_type(style), model, tokenizer)
    short = predict(make_task_type(style, beams=4, length_penalty=-10.0), model, tokenizer)
    long = predict(make_task_type(style, beams=4, length_penalty=10.0), model, tokenizer)
    assert sum(map(len, short)) <= sum(map(len, long))


def test_no_ngram_occurs_twice_when_that_is_asked_for(tiny_base: FindBase) -> None:
    task_type, model, tokenizer = load("gpt2", tiny_base("gpt2"), max_target=30)
    free = [tokenizer(text)["input_ids"] for text in predict(task_type, model, tokenizer)]
    task_type, model, tokenizer = load("gpt2", tiny_base("gpt2"), max_target=30, no_repeat_ngram=1)
    bound = [tokenizer(text)["input_ids"] for text in predict(task_type, model, tokenizer)]
    assert any(len(set(ids)) < len(ids) for ids in free)
    assert bound != free


@pytest.mark.parametrize("style", FAMILIES)
def test_recorded_numbers_do_not_depend_on_other_rows(tiny_base: FindBase, style: str) -> None:
    task_type, model, tokenizer = load(style, tiny_base(style))

    def compute(rows: Sequence[dict[str, str]]) -> np.ndarray[Any, Any]:
        return task_type.compute_outputs(model, tokenizer, rows, None, lambda _done: None)

    outputs = compute(ROWS)
    assert outputs.shape == (3, 16)
    assert np.isfinite(outputs).all()
    for index, row in enumerate(ROWS):
        np.testing.assert_array_equal(compute([row])[0], outputs[index])
        assert outputs[index].std() > 0.01
    # Another model has other numbers.
    with torch.no_grad():
        model.get_submodule("lm_head").weight[:, 0] += 1.0
    assert np.abs(compute(ROWS) - outputs).max() > 1e-3


def test_progress_is_told(tiny_base: FindBase) -> None:
    task_type, model, tokenizer = load("gpt2", tiny_base("gpt2"), max_target=2)
    done: list[int] = []
    task_type.predict(model, tokenizer, ROWS * 30, None, done.append)
    assert done == [64, 90]
    assert task_type.predict(model, tokenizer, [], None, done.append) == []


def test_what_machines_read_has_the_input_and_the_answer() -> None:
    assert join_prediction({"text": "in"}, {"text": "out"}) == {"text": "in", "predicted_text": "out"}
    row = {"text": "in", "text_pair": "more"}
    assert join_prediction(row, {"label": "a", "score": 1.0}) == {**row, "label": "a", "score": 1.0}


# Evaluation


def test_one_input_has_all_its_references() -> None:
    task_type = make_task_type("gpt2")
    rows = [{"text": "a"}, {"text": "b"}, {"text": "a"}, {"text": "a", "text_pair": "c"}]
    grouped = task_type.group_targets(rows, ["one", "two", "three", "four"])
    assert grouped == (
        [{"text": "a"}, {"text": "b"}, {"text": "a", "text_pair": "c"}],
        [("one", "three"), ("two",), ("four",)],
    )


def test_the_plot_shows_every_row() -> None:
    task_type = make_task_type("gpt2")
    axes = Figure().add_subplot()
    targets = [("a b c", "a b"), ("d",), ("e f",)]
    task_type.plot_predictions(axes, targets, [{"text": "a b"}, {"text": ""}, {"text": "x y z w"}])
    (points,) = axes.collections
    np.testing.assert_allclose(points.get_array(), [1, 0, 0])
    np.testing.assert_allclose(points.get_offsets(), [[2, 2], [1, 0], [2, 4]], atol=0.31)
    assert "prediction" in axes.get_ylabel()


def test_a_text_is_shown_on_one_line() -> None:
    assert make_task_type("gpt2").describe_prediction({"text": "two\n lines"}) == "two lines"


# Bases that do not suit


def test_a_base_without_its_output_layer_is_refused(make_base: FindBase) -> None:
    from transformers import AutoModel

    folder = make_base("llama")
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(BaseModelError, match="its weights lack") as caught:
        make_task_type("llama").load_model(folder, None)
    assert "lm_head" in caught.value.what
    assert "output layer" in caught.value.todo


def test_an_output_layer_of_its_own_is_kept(make_base: FindBase) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_base("mt5")
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    head = torch.randn(tensors["shared.weight"].shape, generator=generator)
    save_file({**tensors, "lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
    task_type, model, _ = load("mt5", folder)
    assert task_type.name == "text-to-text"
    assert torch.equal(model.lm_head.weight, head)
    assert not torch.equal(model.lm_head.weight, model.shared.weight)
