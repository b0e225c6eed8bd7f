"""Texts that are far longer than a model reads: the same tokens from their beginning."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.task_types import InputForm
from lorry_components.task_types.long_texts import cut_text
from lorry_components.task_types.regression import Regression

WORDS = "the quick brown fox jumps over a lazy dog, and unbelievably\u00a0nobody\u3000minds "


@pytest.mark.parametrize("text", ["", "short", WORDS * 3, "x" * 100_000, "\u200b " * 50_000 + "x" * 50_000])
def test_what_may_have_too_few_tokens_stays_whole(text: str) -> None:
    shortened = cut_text(text, 16)
    assert text.startswith(shortened)
    assert shortened == text or len(shortened.split()) >= 32


def test_of_a_long_text_little_is_left() -> None:
    shortened = cut_text(WORDS * 10_000, 16)
    assert len(shortened) <= 64 * 2 * 16
    assert shortened.split() == (WORDS * 10_000).split()[: len(shortened.split())]


@pytest.mark.parametrize("has_pair", [False, True])
def test_the_tokens_are_those_of_the_whole_text(
    has_pair: bool, tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    task_type = Regression(InputForm(max_length=16, has_pair=has_pair))
    reader: Any = task_type.load_reader(tiny_base("bert"))
    texts = [WORDS * 200, "one two", WORDS]
    rows = [
        {"text": text, **({"text_pair": other} if has_pair else {})}
        for text, other in zip(texts, reversed(texts), strict=True)
    ]
    read: list[int] = []

    class Noting:
        def __call__(self, *texts: Any, **options: Any) -> Any:
            read.append(max(len(text) for each in texts if each is not None for text in each))
            return reader(*texts, **options)

    found = task_type.encode_rows(Noting(), rows)  # type: ignore[arg-type]
    monkeypatch.setattr("lorry_components.task_types.sequence_head.cut_text", lambda text, _tokens: text)
    assert found == task_type.encode_rows(Noting(), rows)  # type: ignore[arg-type]
    assert read[0] < 3000
    assert read[1] > 10_000
