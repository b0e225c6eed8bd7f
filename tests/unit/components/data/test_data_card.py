import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.data.data_card import DataCard, NumberSummary, SplitCard, describe_part, list_labels
from lorry_components.data.examples import Example
from lorry_registry.errors import InvalidDataError, NotFoundError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.tasks.input_specs import Columns

DIGEST = digest_bytes(b"")


@pytest.fixture
def card(example: Callable[..., Example]) -> DataCard:
    part = describe_part([example("good film", "yes"), example("bad", "no")], DIGEST, label_form="class")
    return DataCard(
        task="reviews",
        kind="text-classification",
        source="reviews.csv",
        revision=None,
        source_digest=DIGEST,
        data_digest=DIGEST,
        columns=Columns(),
        labels=("no", "yes"),
        splits={"train": part, "validation": part, "test": part},
        dropped={},
        warnings=("wörtlich",),
    )


def test_round_trip(card: DataCard, tmp_path: Path) -> None:
    card.save(tmp_path / "card.json")
    assert DataCard.load(tmp_path / "card.json") == card
    first = (tmp_path / "card.json").read_bytes()
    DataCard.load(tmp_path / "card.json").save(tmp_path / "card.json")
    assert (tmp_path / "card.json").read_bytes() == first
    assert "wörtlich" in first.decode()


def test_numbers_round_trip(card: DataCard, tmp_path: Path, example: Callable[..., Example]) -> None:
    part = describe_part([example("a", value) for value in (1.0, 2.0, 3.0, 4.0)], DIGEST, label_form="number")
    assert part.labels == NumberSummary(
        min=1.0, lower_quartile=1.75, median=2.5, mean=2.5, upper_quartile=3.25, max=4.0
    )
    changed = card.model_copy(update={"labels": None, "splits": {"train": part}})
    changed.save(tmp_path / "card.json")
    assert DataCard.load(tmp_path / "card.json") == changed


def test_classes_and_lengths(example: Callable[..., Example]) -> None:
    rows = [example("one two", "b", "three"), example("one", "a", "two"), example("w " * 20, "b", "w")]
    part = describe_part(rows, DIGEST, label_form="class")
    assert part.rows == 3
    assert part.labels == {"a": 1, "b": 2}
    assert list_labels({"train": rows}) == ("a", "b")
    words = part.words
    assert (words.min, words.median, words.max) == (2, 3.0, 21)
    assert words.mean == pytest.approx(26 / 3)
    assert 3 < words.p95 < 21


@pytest.mark.parametrize("values", [[1e-12, 3e-12], [3.4e38, -3.4e38], [5.0]])
def test_numbers_of_any_size(values: list[float], example: Callable[..., Example]) -> None:
    part = describe_part([example("a", value) for value in values], DIGEST, label_form="number")
    assert isinstance(part.labels, NumberSummary)
    assert part.labels.min == min(values)
    assert part.labels.max == max(values)


def test_no_card(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not prepared or only in part"):
        DataCard.load(tmp_path / "card.json")
    (tmp_path / "file").touch()
    with pytest.raises(NotFoundError):
        DataCard.load(tmp_path / "file" / "card.json")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000, b'{"version": 1}', b"x" * (17 << 20)]
)
def test_a_damaged_card(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(InvalidDataError, match="run prepare_data again") as caught:
        DataCard.load(tmp_path / "card.json")
    assert len(str(caught.value)) < 2500


def test_all_faults_of_a_card_are_told(card: DataCard, tmp_path: Path) -> None:
    document: dict[str, Any] = card.model_dump(mode="json")
    document["splits"]["train"]["rows"] = -1
    document["data_digest"] = "md5:0"
    document["version"] = 2
    document["more"] = True
    (tmp_path / "card.json").write_text(json.dumps(document))
    with pytest.raises(InvalidDataError) as caught:
        DataCard.load(tmp_path / "card.json")
    assert {fault.where for fault in caught.value.faults} == {
        "splits.train.rows",
        "data_digest",
        "version",
        "more",
    }


def test_a_card_is_frozen(card: DataCard) -> None:
    with pytest.raises(ValueError, match="frozen"):
        card.task = "other"  # type: ignore[misc]
    assert isinstance(card.splits["train"], SplitCard)
