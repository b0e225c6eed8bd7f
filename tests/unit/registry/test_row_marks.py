"""The marks of rows: changes of data told in rows."""

from collections.abc import Callable

import pytest

from lorry_registry.digests import digest_bytes
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.manifest import TrainingInputs
from lorry_registry.row_marks import (
    Labels,
    RowChanges,
    RowMarks,
    gather_labels,
    read_marks,
    store_marks,
)
from lorry_registry.stores import LocalStore

from fixtures.adapters import AdapterFolder

SALT = digest_bytes(b"data")


def make_table(first: int, last: int, **labels: str) -> Labels:
    return gather_labels(((f"row {n}", ""), labels.get(f"r{n}", "good")) for n in range(first, last))


def test_rows_are_counted() -> None:
    marks = RowMarks.collect(make_table(0, 3000), salt=SALT)
    assert marks.compare(make_table(0, 3000)) == RowChanges(0, 0, 0)
    assert marks.compare(make_table(100, 3500, r200="bad", r300="bad")) == RowChanges(500, 100, 2)


def test_one_input_with_several_labels() -> None:
    marks = RowMarks.collect(gather_labels([(("a", ""), "x"), (("a", ""), "y"), (("b", ""), 1.5)]), salt=SALT)
    # Neither the order nor a repetition is a change.
    same = gather_labels([(("b", ""), 1.5), (("a", ""), "y"), (("a", ""), "x"), (("a", ""), "y")])
    assert marks.compare(same) == RowChanges(0, 0, 0)
    fewer = gather_labels([(("b", ""), 1.0), (("a", ""), "y")])
    assert marks.compare(fewer) == RowChanges(0, 0, 2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (RowChanges(0, 0, 0), ""),
        (RowChanges(1, 0, 0), "1 added row"),
        (RowChanges(1500, 0, 2), "1,500 added and 2 relabelled rows"),
        (RowChanges(1, 2, 3), "1 added, 2 removed and 3 relabelled rows"),
    ],
)
def test_counts_in_words(changes: RowChanges, told: str) -> None:
    assert changes.describe() == told


def test_bytes_come_back_and_are_few() -> None:
    marks = RowMarks.collect(make_table(0, 2000), salt=SALT)
    content = marks.serialize()
    assert RowMarks.parse(content, where="here") == marks
    assert len(content) < 2000 * 5.1 + 200
    empty = RowMarks.collect({}, salt=SALT)
    assert RowMarks.parse(empty.serialize(), where="here") == empty


@pytest.mark.parametrize("cut", [0, 10, 120, 200, -1, -3])
def test_damaged_bytes_are_refused(cut: int) -> None:
    content = RowMarks.collect(make_table(0, 50), salt=SALT).serialize()
    with pytest.raises(AdapterRejectedError, match="cannot be read"):
        RowMarks.parse(content[:cut], where="here")


def test_they_lie_beside_the_adapter(store: LocalStore, make_adapter: Callable[..., AdapterFolder]) -> None:
    marks = RowMarks.collect(make_table(0, 5), salt=SALT)
    content = marks.serialize()
    manifest = make_adapter().manifest
    assert read_marks(store, manifest) is None
    inputs: TrainingInputs = manifest.inputs.model_copy(update={"marks_digest": digest_bytes(content)})
    manifest = manifest.model_copy(update={"inputs": inputs})
    with pytest.raises(AdapterRejectedError, match="missing"):
        read_marks(store, manifest)
    with pytest.raises(AdapterRejectedError, match="not those in its manifest"):
        store_marks(store, manifest, content + b"x")
    store_marks(store, manifest, content)
    store_marks(store, manifest, content)
    assert read_marks(store, manifest) == marks
    (path,) = store.root.glob("attestations/*/row-marks/*.bin")
    path.write_bytes(content + b"x")
    with pytest.raises(AdapterRejectedError, match="changed"):
        read_marks(store, manifest)
    store_marks(store, manifest, content)
    assert read_marks(store, manifest) == marks
