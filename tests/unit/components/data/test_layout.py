from collections.abc import Callable
from pathlib import Path

import pytest

from lorry_components.data.layout import TABLE, choose_layout, find_format
from lorry_components.data.reading import Reading
from lorry_registry.errors import InvalidDataError
from lorry_registry.tasks.input_specs import DataSpec, NamedSplits, SeededSplit

DEFAULT = DataSpec(source="set")


def test_a_single_file_is_split_by_default() -> None:
    layout = choose_layout(["a.jsonl"], DEFAULT)
    assert layout.parts == {TABLE: ("a.jsonl",)}
    assert layout.split == SeededSplit()


def test_a_split_takes_all_files_as_one_table() -> None:
    split = SeededSplit(validation=0.2, test=0.3, seed=7)
    layout = choose_layout(["b.csv", "a.jsonl"], DataSpec(source="set", split=split))
    assert layout.parts == {TABLE: ("a.jsonl", "b.csv")}
    assert layout.split == split


def test_the_usual_names_are_found() -> None:
    layout = choose_layout(["test.csv", "train.jsonl.gz", "validation.parquet", "more.csv"], DEFAULT)
    assert layout.split is None
    assert layout.parts == {
        "train": ("train.jsonl.gz",),
        "validation": ("validation.parquet",),
        "test": ("test.csv",),
    }
    assert layout.names == ("test.csv", "train.jsonl.gz", "validation.parquet")


def test_names_are_given_with_or_without_ending_and_in_pieces() -> None:
    names = ["a-00000-of-00002.parquet", "a-00001-of-00002.parquet", "b.csv", "c.csv", "c.tsv"]
    splits = NamedSplits(train="a", validation="b", test="c.tsv")
    layout = choose_layout(names, DataSpec(source="set", splits=splits))
    assert layout.parts["train"] == tuple(names[:2])
    assert layout.parts["test"] == ("c.tsv",)


def refuse(names: list[str], data: DataSpec, *, in_folder: bool = True) -> str:
    with pytest.raises(InvalidDataError) as caught:
        choose_layout(names, data, in_folder=in_folder)
    return str(caught.value)


def test_all_missing_names_are_told() -> None:
    splits = NamedSplits(train="trein", validation="dev", test="test")
    message = refuse(["train.csv", "test.csv"], DataSpec(source="set", splits=splits))
    assert "set: 2 faults" in message
    assert (
        "data.splits.train: the source has no 'trein'; it has test.csv, train.csv; did you mean 'train'?"
        in message
    )
    assert "data.splits.validation: the source has no 'dev'" in message


def test_two_files_of_one_name() -> None:
    message = refuse(["train.csv", "train.jsonl", "validation.csv", "test.csv"], DEFAULT)
    assert "data.splits.train: 'train' may be train.csv, train.jsonl; give the file's full name" in message


def test_several_files_and_no_word_on_them() -> None:
    message = refuse(["train.csv", "test.csv"], DEFAULT)
    assert "it is not clear which is which" in message
    assert "data.splits" in message
    assert "data.split " in message


def test_parts_of_a_single_file() -> None:
    splits = DataSpec(source="a.csv", splits=NamedSplits())
    assert "the source is one file" in refuse(["a.csv"], splits, in_folder=False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.json", "json lines"),
        ("a.CSV.GZ", "csv"),
        ("a.tsv", "tsv"),
        ("a.parquet.gz", None),
        ("train", None),
    ],
)
def test_formats(name: str, expected: str | None) -> None:
    assert find_format(name) == expected


def test_parts_are_read(
    read: Callable[..., Reading], write_lines: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    for name, text in {"train-0-of-2": "a", "train-1-of-2": "b", "validation": "c", "test": "d"}.items():
        write_lines(f"{name}.csv", ["text,label", f"{text},x"], folder)
    reading = read(folder)
    assert reading.split is None
    texts = {part: [example.row["text"] for example in examples] for part, examples in reading.parts.items()}
    assert texts == {"train": ["a", "b"], "validation": ["c"], "test": ["d"]}
