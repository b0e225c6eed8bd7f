"""From what a person asks to compare to variants, or to all that is wrong with it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from lorry_components.studies.variants import (
    MethodChoice,
    TaskDocument,
    Variant,
    build_variants,
    draft_method,
    find_label,
    parse_methods,
)
from lorry_registry.errors import BaseModelError, InvalidTaskError

Compare = Callable[..., list[Variant]]


def test_methods_are_read_with_their_options() -> None:
    choices, faults = parse_methods("full,lora:r=16;targets=[query, value],bitfit:train.learning_rate=0.003")
    assert not faults
    assert choices == [
        MethodChoice("full"),
        MethodChoice("lora", {"r": 16, "targets": ["query", "value"]}),
        MethodChoice("bitfit", {}, {"learning_rate": 0.003}),
    ]
    assert [choice.label for choice in choices] == [
        "full",
        "lora r=16 targets=query,value",
        "bitfit learning_rate=0.003",
    ]


def test_a_comma_in_quotes_parts_nothing() -> None:
    choices, faults = parse_methods("peft:type='A,B;C',full")
    assert not faults
    assert choices == [MethodChoice("peft", {"type": "A,B;C"}), MethodChoice("full")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("full,,lora", "a name is missing"),
        ("lora:r", "'r' is not of the form OPTION=VALUE"),
        ("lora:=3", "is not of the form"),
        ("lora:targets=[a", "is not a YAML value"),
        ("lora:init={a: b: c}", "is not a YAML value"),
        ("lora:r=2,full,lora:r=2", "is given twice"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, told: str) -> None:
    _, faults = parse_methods(text)
    assert [told in fault.what for fault in faults] == [True]


def test_the_files_own_section_counts_for_its_method(compare: Compare) -> None:
    own, changed, other = compare("lora,lora:r=2,bitfit")
    assert own.spec.method.options == {"r": 4, "targets": ["query", "value"]}
    assert changed.spec.method.options == {"r": 2, "targets": ["query", "value"]}
    assert other.spec.method.options == {}
    # 0.01 was chosen for lora.
    assert [variant.spec.train.learning_rate for variant in (own, changed, other)] == [0.01, 0.01, None]


def test_a_heads_own_rate_counts_for_the_files_method(compare: Compare) -> None:
    head = {"pooling": "mean", "dropout": 0.1, "learning_rate": 0.01}
    own, other, probe = compare("lora,bitfit,probe", head=head)
    heads = [variant.spec.head for variant in (own, other, probe)]
    assert [head is not None and head.learning_rate for head in heads] == [0.01, None, None]
    assert [head is not None and head.dropout for head in heads] == [0.1, 0.1, None]
    for variant in compare("lora,bitfit", ("head.learning_rate=0.5",), head=head):
        assert variant.spec.head is not None
        assert variant.spec.head.learning_rate == 0.5


def test_what_the_command_line_sets_is_meant_for_all(compare: Compare) -> None:
    variants = compare("lora,bitfit", ("train.learning_rate=0.5", "train.steps=2"))
    assert [variant.spec.train.learning_rate for variant in variants] == [0.5, 0.5]
    assert [variant.spec.train.steps for variant in variants] == [2, 2]


def test_options_that_the_command_line_sets_are_meant_for_all(compare: Compare) -> None:
    variants = compare("lora,vera,lora:targets=[key]", ("method.targets=[value]",), method={"name": "bitfit"})
    assert [variant.spec.method.options["targets"] for variant in variants] == [["value"], ["value"], ["key"]]
    own, other = compare("lora,qlora:r=2", ("method.dropout=0.5",))
    assert own.spec.method.options == {"r": 4, "targets": ["query", "value"], "dropout": 0.5}
    assert other.spec.method.options == {"r": 2, "dropout": 0.5}


def test_a_section_that_the_command_line_sets_is_meant_for_all(compare: Compare) -> None:
    variants = compare("lora,bitfit", ("train={steps: 2, learning_rate: 0.5}",))
    assert [variant.spec.train.learning_rate for variant in variants] == [0.5, 0.5]


def test_a_method_may_have_a_train_section_of_its_own(compare: Compare) -> None:
    (variant,) = compare("full:train.learning_rate=0.001;train.weight_decay=0.1")
    assert variant.spec.train.learning_rate == 0.001
    assert variant.spec.train.weight_decay == 0.1


def test_options_below_options_are_the_same(compare: Compare) -> None:
    (variant,) = compare("lora:r=2", method={"name": "lora", "options": {"r": 4, "targets": ["key"]}})
    assert variant.spec.method.options == {"r": 2, "targets": ["key"]}


def test_all_faults_are_told_at_once(task_file: Callable[..., Path]) -> None:
    task = TaskDocument.load(task_file(data={"maxlen": 3}))
    choices, faults = parse_methods("lora:rr=1;r=x,lorra,full,full")
    with pytest.raises(InvalidTaskError) as caught:
        build_variants(task, [draft_method(choice, task) for choice in choices], faults)
    told = str(caught.value)
    for text in (
        "data.maxlen: there is no such field",
        "--methods full: is given twice",
        "lora rr=1 r=x: method.rr: lora has no option 'rr'; did you mean 'r'?",
        "lora rr=1 r=x: method.r: input should be a valid integer",
        "lorra: method.name: there is no method 'lorra'; did you mean 'lora'?",
    ):
        assert text in told
    # Once, with its line, and not again for each method.
    assert told.count("maxlen") == 1
    assert "line " in told


def test_a_probe_keeps_nothing_of_the_training_but_its_precision(task_file: Callable[..., Path]) -> None:
    task = TaskDocument.load(task_file(train={"batch_size": 4, "precision": "fp32", "learning_rate": 1e-3}))
    (probe,) = build_variants(task, [draft_method(MethodChoice("probe"), task)])
    assert probe.spec.train.model_fields_set == {"precision"}
    assert probe.spec.train.precision == "fp32"


def test_methods_that_do_not_fit_the_base_are_refused(compare: Compare) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        compare("lora:r=99,lora:targets=[nope],bitfit,prompt-tuning:tokens=60")
    told = [(fault.document, fault.what) for fault in caught.value.faults]
    assert [document for document, _ in told] == [
        "lora r=99",
        "lora targets=nope",
        "prompt-tuning tokens=60",
    ]
    assert "rank 99 is above" in told[0][1]


def test_a_method_that_this_installation_lacks_is_refused(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "bitsandbytes" else real(name, *rest)
    )
    with pytest.raises(InvalidTaskError, match=r"qlora: method.name: .*needs bitsandbytes; pip install"):
        compare("lora,qlora")


def test_a_base_that_is_not_there_is_told(compare: Compare) -> None:
    with pytest.raises(BaseModelError, match="no such folder"):
        compare("lora", base={"model": "./nowhere"})


def test_the_same_recipe_twice_is_refused(compare: Compare) -> None:
    with pytest.raises(InvalidTaskError, match="is the same recipe as lora"):
        compare("lora,lora:r=4")


def test_the_method_to_compare_with_is_one_of_them() -> None:
    labels = ["full", "lora r=2", "1 untrained"]
    assert find_label(None, labels) == (None, [])
    for text in ("lora:r=2", "lora r=2"):
        assert find_label(text, labels) == ("lora r=2", [])
    assert find_label("1 untrained", labels) == ("1 untrained", [])
    label, (fault,) = find_label("lora", labels)
    assert label is None
    assert fault.what.endswith("full, lora r=2, 1 untrained")
