"""Prompts and answers in tokens: templates, cuts, spaces, chat templates, ends."""

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lorry_components.task_types import InputForm, TextGeneration, TextToText
from lorry_components.task_types.generation.prompts import PromptWriter, cut_label, share_out
from lorry_registry.errors import TrainingError
from lorry_registry.tasks.task_spec import GenerateSpec

FindTokenizer = Callable[[str], PreTrainedTokenizerBase]


def check(template: str, *, has_pair: bool = False) -> list[str]:
    return [str(fault) for fault in TextGeneration.check_template(template, has_pair=has_pair)]


def make_writer(
    tokenizer: PreTrainedTokenizerBase, template: str | None = None, **options: Any
) -> PromptWriter:
    task_type = TextGeneration if options.pop("is_causal", True) else TextToText
    chat = options.pop("chat", "auto")
    form = {"max_length": 60, "max_target": 20} | options
    return task_type(InputForm(template=template, generate=GenerateSpec(chat=chat), **form)).build_writer(
        tokenizer
    )


@pytest.mark.parametrize(
    "template",
    ["{text}", "Q: {text}\nA: {label}", "Q: {text}\nA: {label}\n", "{text} {{braces}}", "{text}{text}"],
)
def test_templates_that_can_work(template: str) -> None:
    assert check(template) == []
    assert list(TextToText.check_template(template, has_pair=False)) == []
    assert check(f"{{text_pair}} {template}", has_pair=True) == []


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("Write a sentence", "it has no {text}"),
        ("{label}", "it has no {text}"),
        ("{text} {table}", "there is no {table}"),
        ("{text!r}", "{text} takes no format"),
        ("{text:>9}", "{text} takes no format"),
        ("{text", "expected '}'"),
        ("{text} {", "Single '{'"),
        ("{label} {text}", "{label} may only stand at its end"),
        ("{text} {label}.", "{label} may only stand at its end"),
        ("{text} {label} {label}", "{label} may only stand at its end"),
        ("{text} {text_pair}", "data.columns.text_pair names no column"),
    ],
)
def test_templates_that_cannot(template: str, fault: str) -> None:
    (found,) = check(template)
    assert fault in found


def test_a_second_text_has_to_be_in_the_template() -> None:
    (found,) = check("{text}", has_pair=True)
    assert "it has no {text_pair}" in found
    assert len(check("{label} then", has_pair=True)) == 3


def test_the_answer_stands_where_the_label_is() -> None:
    assert cut_label("Q: {text}\nA: {label}\n") == "Q: {text}\nA: "
    assert cut_label("{text}\n") == "{text}\n"
    assert cut_label("{text} {{label}}") == "{text} {{label}}"


def test_without_a_template_the_texts_stand_in_lines(find_tokenizer: FindTokenizer) -> None:
    tokenizer = find_tokenizer("gpt2")
    (ids,) = make_writer(tokenizer).encode_prompts([{"text": "name[Aromi]"}])
    assert tokenizer.decode(ids) == "name[Aromi]\n"
    (ids,) = make_writer(tokenizer, has_pair=True).encode_prompts([{"text": "one", "text_pair": "two"}])
    assert tokenizer.decode(ids) == "one\ntwo\n"
    tokenizer = find_tokenizer("t5")
    (ids,) = make_writer(tokenizer, is_causal=False).encode_prompts([{"text": "one {text}"}])
    assert tokenizer.decode(ids) == "one {text}</s>"


@pytest.mark.parametrize(
    ("style", "prompt", "answer"),
    [
        ("gpt2", "x\n", "y<|endoftext|>"),
        ("llama", "<s>x\n", "y</s>"),
        ("qwen2", "<|im_start|>user\nx\n<|im_end|>\n<|im_start|>assistant\n", "y<|im_end|>"),
        ("gemma3_text", "<bos><start_of_turn>user\nx<end_of_turn>\n<start_of_turn>model\n", "y<end_of_turn>"),
        ("t5", "x</s>", "y</s>"),
        ("bart", "<s>x</s>", "<s>y</s>"),
    ],
)
def test_each_family_gets_its_own_ends(
    find_tokenizer: FindTokenizer, style: str, prompt: str, answer: str
) -> None:
    tokenizer = find_tokenizer(style)
    writer = make_writer(tokenizer, is_causal=style not in ("t5", "bart"))
    assert tokenizer.decode(writer.encode_prompts([{"text": "x"}])[0]) == prompt
    assert tokenizer.decode(writer.encode_answers([" y "])[0]) == answer
    assert writer.encode_answers(["y"])[0][-1] == writer.stops[0]
    assert tokenizer.eos_token_id in writer.stops


def test_a_chat_template_can_be_left_alone(find_tokenizer: FindTokenizer) -> None:
    tokenizer = find_tokenizer("gemma3_text")
    writer = make_writer(tokenizer, chat="never")
    assert tokenizer.decode(writer.encode_prompts([{"text": "x"}])[0]) == "<bos>x\n"
    assert tokenizer.decode(writer.encode_answers(["y"])[0]) == "y<eos>"


def test_a_chat_template_that_refuses_is_told(make_base: Callable[[str], Any]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_base("qwen2"))
    tokenizer.chat_template = "{{ raise_exception('start with a system message') }}"
    with pytest.raises(TrainingError, match="start with a system message") as caught:
        make_writer(tokenizer)
    assert caught.value.where == "generate.chat"


def test_a_template_that_writes_the_date_writes_the_same_one_every_day(
    make_base: Callable[[str], Any],
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_base("qwen2"))
    tokenizer.chat_template = (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }}: {{ messages[0]['content'] }}"
    )
    (ids,) = make_writer(tokenizer).encode_prompts([{"text": "x"}])
    assert tokenizer.decode(ids) == "26 Jul 2024: x\n"


def test_a_space_before_the_answer_is_the_answers(find_tokenizer: FindTokenizer) -> None:
    tokenizer = find_tokenizer("gpt2")
    writer = make_writer(tokenizer, "{text} is {label}")
    (prompt,), (answer,) = writer.encode_prompts([{"text": "x"}]), writer.encode_answers(["y"])
    assert tokenizer.decode(prompt) == "x is"
    assert tokenizer.decode(answer) == " y<|endoftext|>"
    # As the tokeniser itself would part the whole.
    assert [*prompt, *answer[:-1]] == tokenizer("x is y")["input_ids"]
    assert writer.decode_answer(answer) == "y"


def test_a_tokeniser_that_puts_a_space_before_a_text_needs_none() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(special_tokens=["</s>"], show_progress=False)
    tokenizer.train_from_iterator(["x is y", "xi sy"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")  # noqa: S106
    writer = make_writer(fast, "{text} is {label}")
    (prompt,), (answer,) = writer.encode_prompts([{"text": "x"}]), writer.encode_answers(["y"])
    assert [*prompt, *answer[:-1]] == fast("x is y")["input_ids"]
    assert writer.decode_answer(answer) == "y"


def test_an_empty_text_leaves_a_token_to_go_on_from(find_tokenizer: FindTokenizer) -> None:
    tokenizer = find_tokenizer("gpt2")
    assert make_writer(tokenizer, "{text} {label}").encode_prompts([{"text": ""}]) == [
        [tokenizer.eos_token_id]
    ]


def test_a_long_text_loses_its_end_and_the_template_nothing(find_tokenizer: FindTokenizer) -> None:
    tokenizer = find_tokenizer("gpt2")
    writer = make_writer(tokenizer, "Say: {text}\nSentence:", max_length=50)
    rows = [{"text": "short"}, {"text": " ".join(f"word{number}" for number in range(60))}]
    short, long = writer.encode_prompts(rows)
    assert len(short) < len(long) <= 30
    assert len(long) >= 28
    told = tokenizer.decode(long)
    assert told.startswith("Say: word0 word1")
    assert told.endswith("\nSentence:")
    assert rows[1]["text"].startswith(told.removeprefix("Say: ").removesuffix("\nSentence:"))


def test_a_chat_keeps_its_turns_when_the_text_is_cut(find_tokenizer: FindTokenizer) -> None:
    tokenizer = find_tokenizer("qwen2")
    writer = make_writer(tokenizer, max_length=60)
    (ids,) = writer.encode_prompts([{"text": "a b c d e " * 50}])
    assert len(ids) <= 40
    told = tokenizer.decode(ids)
    assert told.startswith("<|im_start|>user\na b c")
    assert told.endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_of_a_pair_the_longer_text_is_cut_first(find_tokenizer: FindTokenizer) -> None:
    tokenizer = find_tokenizer("t5")
    writer = make_writer(tokenizer, "{text} | {text_pair}", is_causal=False, has_pair=True, max_length=30)
    (ids,) = writer.encode_prompts([{"text": "k " * 60, "text_pair": "m n o"}])
    assert len(ids) <= 30
    assert tokenizer.decode(ids).endswith("k | m n o</s>")
    (ids,) = writer.encode_prompts([{"text": "k " * 60, "text_pair": "m " * 90}])
    told = tokenizer.decode(ids)
    assert len(ids) <= 30
    assert abs(told.count("k") - told.count("m")) <= 1


def test_sizes_share_an_excess() -> None:
    assert share_out({"text": 10, "text_pair": 4}, 3) == {"text": 7, "text_pair": 4}
    assert share_out({"text": 10, "text_pair": 4}, 8) == {"text": 3, "text_pair": 3}
    assert share_out({"text": 2, "text_pair": 5}, 99) == {"text": 0, "text_pair": 0}
    assert share_out({"text": 5}, 0) == {"text": 5}


def test_a_template_that_leaves_no_room_is_told(find_tokenizer: FindTokenizer) -> None:
    writer = make_writer(find_tokenizer("gpt2"), "z q " * 40 + "{text}")
    with pytest.raises(TrainingError, match="the template alone takes") as caught:
        writer.encode_prompts([{"text": "a text"}])
    assert caught.value.where == "data.template"


@pytest.mark.parametrize("text", ["\N{SLIGHTLY SMILING FACE}" * 60, "ä" * 200, "\u200b" * 200, "a" * 500])
def test_any_text_can_be_cut(find_tokenizer: FindTokenizer, text: str) -> None:
    (ids,) = make_writer(find_tokenizer("gpt2")).encode_prompts([{"text": text}])
    assert 0 < len(ids) <= 40


def test_a_cut_answer_has_no_end(find_tokenizer: FindTokenizer) -> None:
    writer = make_writer(find_tokenizer("gpt2"), max_target=6)
    short, exact, long = writer.encode_answers(["abc", "uvwxy", "a b c d e f g h i"])
    assert short[-1] == writer.stops[0]
    assert len(exact) == 6
    assert exact[-1] == writer.stops[0]
    assert len(long) == 6
    assert writer.stops[0] not in long


def test_a_tokeniser_without_an_end_is_told(
    find_tokenizer: FindTokenizer, make_base: Callable[[str], Any]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_base("gpt2"), eos_token=None)
    with pytest.raises(TrainingError, match="no token that ends a text"):
        make_writer(tokenizer)


def test_what_stands_behind_the_end_is_not_read(find_tokenizer: FindTokenizer) -> None:
    tokenizer = find_tokenizer("qwen2")
    writer = make_writer(tokenizer)
    ids = [*tokenizer(" two words \n")["input_ids"], writer.stops[0], *tokenizer("more")["input_ids"]]
    assert writer.decode_answer(ids) == "two words"
    assert writer.decode_answer([tokenizer.eos_token_id, *ids]) == ""
