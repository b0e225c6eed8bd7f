from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorry_components.data import prepared
from lorry_components.steps.prepare_data.step import DataCard, Example, load_card, load_part, prepare_data
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import ConflictError, InvalidDataError, NotFoundError, StoreError
from lorry_registry.tasks.task_spec import TaskSpec

FILES = ["data_card.json", "test.parquet", "train.parquet", "validation.parquet"]


@pytest.fixture
def spec(make_spec: Callable[..., TaskSpec], write_lines: Callable[..., Path]) -> TaskSpec:
    rows = [{"text": f"text {number}", "label": "xy"[number % 2]} for number in range(100)]
    return make_spec(write_lines("reviews.jsonl", rows))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "prepared"


def list_names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_new_folder_is_complete(spec: TaskSpec, target: Path) -> None:
    card = prepare_data(resolve_task(spec), target)
    assert list_names(target) == FILES
    assert list_names(target.parent) == ["prepared"]
    assert load_card(target) == card
    assert target.stat().st_mode & 0o777 == target.parent.stat().st_mode & 0o777


def test_an_empty_folder_is_filled(spec: TaskSpec, target: Path) -> None:
    target.mkdir(parents=True)
    inode = target.stat().st_ino
    prepare_data(resolve_task(spec), target)
    assert list_names(target) == FILES
    assert target.stat().st_ino == inode


def test_what_an_earlier_attempt_left_is_replaced(spec: TaskSpec, target: Path) -> None:
    target.mkdir(parents=True)
    (target / "train.parquet").write_bytes(b"half")
    (target / f".data_card.json.{0:032x}.partial").write_bytes(b"half")
    prepare_data(resolve_task(spec), target)
    prepare_data(resolve_task(spec), target)
    assert list_names(target) == FILES
    assert load_part(target, "train")


def test_a_folder_of_something_else_is_left_alone(spec: TaskSpec, target: Path) -> None:
    target.mkdir(parents=True)
    (target / "thesis.txt").write_text("years of work")
    (target / "train.parquet").write_bytes(b"mine")
    with pytest.raises(ConflictError, match=r"holds something else already: thesis.txt"):
        prepare_data(resolve_task(spec), target)
    assert list_names(target) == ["thesis.txt", "train.parquet"]


def test_a_file_in_the_way(spec: TaskSpec, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.touch()
    with pytest.raises(ConflictError, match="is not a folder"):
        prepare_data(resolve_task(spec), target)
    with pytest.raises(StoreError, match="cannot write the prepared data"):
        prepare_data(resolve_task(spec), target / "below")


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interruption_leaves_nothing(
    spec: TaskSpec, target: Path, monkeypatch: pytest.MonkeyPatch, exists: bool, error: BaseException
) -> None:
    target.parent.mkdir(parents=True)
    if exists:
        target.mkdir()

    def fail(path: Path, *args: object) -> None:
        if path.stem == "test":
            path.write_bytes(b"half")
            raise error

    monkeypatch.setattr(prepared, "_write_part", fail)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else StoreError
    with pytest.raises(expected) as caught:
        prepare_data(resolve_task(spec), target)
    if expected is StoreError:
        assert "No space left on device" in str(caught.value)
        assert "check that the disk has space" in str(caught.value)
    assert list_names(target.parent) == (["prepared"] if exists else [])
    assert not exists or list_names(target) == []


def test_the_card_comes_last(spec: TaskSpec, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target.mkdir(parents=True)
    save = DataCard.save

    def watch(card: DataCard, path: Path) -> None:
        assert list_names(target) == FILES[1:]
        save(card, path)

    monkeypatch.setattr(DataCard, "save", watch)
    prepare_data(resolve_task(spec), target)


def test_somebody_else_was_faster(spec: TaskSpec, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = DataCard.save

    def overtake(card: DataCard, path: Path) -> None:
        save(card, path)
        target.mkdir()
        (target / "train.parquet").write_bytes(b"theirs")

    monkeypatch.setattr(DataCard, "save", overtake)
    with pytest.raises(ConflictError, match="someone else wrote this folder meanwhile"):
        prepare_data(resolve_task(spec), target)
    assert list_names(target.parent) == ["prepared"]
    assert list_names(target) == ["train.parquet"]


def test_parts_round_trip(spec: TaskSpec, target: Path) -> None:
    card = prepare_data(resolve_task(spec), target)
    examples = [example for part in card.splits for example in load_part(target, part)]
    assert len(examples) == 100
    assert {example.label for example in examples} == {"x", "y"}
    assert all(isinstance(example, Example) and set(example.row) == {"text"} for example in examples)
    table = pq.read_table(target / "train.parquet")
    assert table.schema.field("text").type == pa.string()
    assert table.schema.field("label").type == pa.string()


def test_there_is_no_such_part(spec: TaskSpec, target: Path) -> None:
    prepare_data(resolve_task(spec), target)
    with pytest.raises(NotFoundError, match=r"no part 'dev'[\s\S]*train, validation, test"):
        load_part(target, "dev")


def test_an_unfinished_folder(target: Path) -> None:
    target.mkdir(parents=True)
    with pytest.raises(NotFoundError, match="there is no data card"):
        load_part(target, "train")


@pytest.mark.parametrize("content", [b"", b"half", b"PAR1PAR1"])
def test_a_damaged_table(spec: TaskSpec, target: Path, content: bytes) -> None:
    prepare_data(resolve_task(spec), target)
    (target / "train.parquet").write_bytes(content)
    with pytest.raises(InvalidDataError, match=r"train.parquet: is damaged[\s\S]*run prepare_data again"):
        load_part(target, "train")


def test_a_missing_table(spec: TaskSpec, target: Path) -> None:
    prepare_data(resolve_task(spec), target)
    (target / "test.parquet").unlink()
    with pytest.raises(InvalidDataError, match="is missing beside its data card"):
        load_part(target, "test")


def test_rows_that_the_card_does_not_describe(spec: TaskSpec, target: Path) -> None:
    prepare_data(resolve_task(spec), target)
    (target / "validation.parquet").replace(target / "test.parquet")
    with pytest.raises(InvalidDataError, match="not those that the data card describes"):
        load_part(target, "test")
    table = pq.read_table(target / "train.parquet")
    pq.write_table(table.slice(1), target / "train.parquet")
    with pytest.raises(InvalidDataError, match="not those that the data card describes"):
        load_part(target, "train")
    pq.write_table(table.drop_columns(["label"]), target / "train.parquet")
    with pytest.raises(InvalidDataError, match="is damaged"):
        load_part(target, "train")
    pq.write_table(table.rename_columns(["words", "label"]), target / "train.parquet")
    with pytest.raises(InvalidDataError, match="is damaged"):
        load_part(target, "train")
    for label in (float("nan"), b"x"):
        pq.write_table(pa.table({"text": ["a"], "label": [label]}), target / "train.parquet")
        with pytest.raises(InvalidDataError, match="is damaged"):
            load_part(target, "train")
    pq.write_table(pa.table({"text": [None], "label": [None]}), target / "train.parquet")
    with pytest.raises(InvalidDataError, match="not those that the data card describes"):
        load_part(target, "train")
