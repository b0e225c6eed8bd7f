import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorry_components.data.examples import digest_example
from lorry_components.steps.prepare_data import step
from lorry_components.steps.prepare_data.step import Example, digest_source, load_part, prepare_data
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import InvalidDataError
from lorry_registry.tasks.task_spec import EvaluateSpec, TaskSpec

MakeSpec = Callable[..., TaskSpec]
WriteLines = Callable[..., Path]

ROWS = [{"text": f"text number {number}", "label": "xyz"[number % 3]} for number in range(200)]


def test_what_is_public() -> None:
    assert step.__all__ == ["DataCard", "Example", "digest_source", "load_card", "load_part", "prepare_data"]


def test_the_card_says_what_was_prepared(
    make_spec: MakeSpec, write_lines: WriteLines, tmp_path: Path
) -> None:
    spec = make_spec(write_lines("reviews.jsonl", ROWS))
    card = prepare_data(resolve_task(spec), tmp_path / "out")
    assert (card.task, card.kind, card.source) == ("reviews", "text-classification", "reviews.jsonl")
    assert card.labels == ("x", "y", "z")
    assert sum(split.rows for split in card.splits.values()) == 200
    assert card.source_digest == digest_source(spec.data)
    assert str(tmp_path) not in (tmp_path / "out" / "data_card.json").read_text()


def test_a_regression_on_pairs(make_spec: MakeSpec, write_lines: WriteLines, tmp_path: Path) -> None:
    rows = [{"a": f"one {number}", "b": f"two {number}", "score": number / 10} for number in range(60)]
    columns = {"text": "a", "text_pair": "b", "label": "score"}
    card = prepare_data(
        resolve_task(make_spec(write_lines("a.jsonl", rows), "regression", columns=columns)), tmp_path / "out"
    )
    assert card.labels is None
    table = pq.read_table(tmp_path / "out" / "train.parquet")
    assert table.column_names == ["text", "text_pair", "label"]
    assert table.schema.field("label").type == pa.float64()
    numbers = {
        example.row["text"]: example.label
        for part in card.splits
        for example in load_part(tmp_path / "out", part)
    }
    assert numbers == {row["a"]: row["score"] for row in rows}


def test_formats_and_orders_of_the_same_rows(
    make_spec: MakeSpec, write_lines: WriteLines, tmp_path: Path
) -> None:
    csv = ["label,text", *(f"{row['label']},{row['text']}" for row in reversed(ROWS))]
    table = pa.table({name: [row[name] for row in ROWS] for name in ("text", "label")})
    pq.write_table(table, tmp_path / "a.parquet")
    sources = [
        write_lines("a.jsonl", ROWS),
        write_lines("a.jsonl.gz", ROWS[::-1]),
        write_lines("a.csv", csv),
        write_lines("a.tsv", [line.replace(",", "\t") for line in csv]),
        tmp_path / "a.parquet",
    ]
    cards = [
        prepare_data(resolve_task(make_spec(source)), tmp_path / source.suffix / "out")
        for source in sources[:1]
    ]
    cards += [
        prepare_data(resolve_task(make_spec(source)), tmp_path / f"out {source.name}")
        for source in sources[1:]
    ]
    assert len({card.data_digest for card in cards}) == 1
    assert len({card.source_digest for card in cards}) == len(cards)
    files = {(tmp_path / f"out {source.name}" / "train.parquet").read_bytes() for source in sources[1:]}
    assert len(files) == 1, "equal data digests mean equal tables, byte for byte"


def test_the_data_digest_follows_the_rows(
    make_spec: MakeSpec, write_lines: WriteLines, tmp_path: Path
) -> None:
    changes = [
        ROWS,
        ROWS[1:],
        [{**ROWS[0], "label": "y"}, *ROWS[1:]],
        [{**ROWS[0], "text": "new"}, *ROWS[1:]],
    ]
    digests = [
        prepare_data(
            resolve_task(make_spec(write_lines(f"{number}.jsonl", rows))), tmp_path / f"out {number}"
        ).data_digest
        for number, rows in enumerate(changes)
    ]
    assert len(set(digests)) == len(changes)
    other_seed = make_spec(write_lines("0.jsonl", ROWS), split={"seed": 1})
    assert prepare_data(resolve_task(other_seed), tmp_path / "out").data_digest not in digests


@settings(max_examples=200, deadline=None, database=None)
@given(
    st.lists(st.tuples(st.text(max_size=3), st.none() | st.text(max_size=3), st.text(max_size=3)), max_size=2)
)
def test_equal_digests_are_equal_examples(fields: list[tuple[str, str | None, str]]) -> None:
    examples = [
        Example({"text": text} | ({} if pair is None else {"text_pair": pair}), label)
        for text, pair, label in fields
    ]
    if len(examples) == 2:
        digests = [digest_example(example) for example in examples]
        assert (digests[0] == digests[1]) == (examples[0] == examples[1])


def test_the_source_digest(make_spec: MakeSpec, write_lines: WriteLines, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for part in ("train", "validation", "test"):
        write_lines(f"{part}.jsonl", ROWS, folder)
    data = make_spec(folder).data
    first = digest_source(data)
    write_lines("SOURCE.md", ["a note"], folder)
    write_lines("more.jsonl", ROWS, folder)
    assert digest_source(data) == first
    write_lines("test.jsonl", ROWS[1:], folder)
    assert digest_source(data) != first


def test_the_source_digest_of_nothing(make_spec: MakeSpec, tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError, match="there is no such file"):
        digest_source(make_spec(tmp_path / "a.jsonl").data)


def test_an_unreadable_source_has_no_digest(
    make_spec: MakeSpec, write_lines: WriteLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(write_lines("a.jsonl", ROWS))

    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InvalidDataError, match=r"a.jsonl: cannot be read: Permission denied"):
        digest_source(spec.data)


def test_a_positive_class_that_the_data_lacks_is_refused(
    make_spec: MakeSpec, write_lines: WriteLines, tmp_path: Path
) -> None:
    section = EvaluateSpec(primary="f1", positive="xy")
    spec = make_spec(write_lines("reviews.jsonl", ROWS)).model_copy(update={"evaluate": section})
    with pytest.raises(
        InvalidDataError, match=r"evaluate\.positive: 'xy' is none of the classes of the data"
    ):
        prepare_data(resolve_task(spec), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_with_faults_writes_nothing(
    make_spec: MakeSpec, write_lines: WriteLines, tmp_path: Path
) -> None:
    with pytest.raises(InvalidDataError):
        prepare_data(resolve_task(make_spec(write_lines("a.jsonl", ["no"]))), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_label_in_test_that_train_lacks(
    make_spec: MakeSpec, write_lines: WriteLines, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    write_lines("train.jsonl", ROWS[:150], folder)
    write_lines("validation.jsonl", ROWS[150:], folder)
    write_lines("test.jsonl", [{"text": "surprise", "label": "w"}], folder)
    with pytest.raises(
        InvalidDataError, match=r"test: has 1 row of 1 class that train lacks \('w'\): 'surprise'"
    ):
        prepare_data(resolve_task(make_spec(folder)), tmp_path / "out")


def test_two_rows_are_too_few(make_spec: MakeSpec, write_lines: WriteLines, tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError, match="has no rows; give more data"):
        prepare_data(resolve_task(make_spec(write_lines("a.jsonl", ROWS[:2]))), tmp_path / "out")


def test_ten_thousand_rows_take_well_under_a_second(
    make_spec: MakeSpec, write_lines: WriteLines, tmp_path: Path
) -> None:
    words = ["it", "is", "neither", "good", "nor", "bad", "but", "long,", "and", "one", "wonders", "why"]
    rows = [
        {"text": f"{number} {' '.join(words[number % 7 :])}", "label": (number % 81) / 10 - 4}
        for number in range(10_605)
    ]
    spec = make_spec(write_lines("films.jsonl", rows), "regression")
    started = time.process_time()
    prepare_data(resolve_task(spec), tmp_path / "out")
    assert time.process_time() - started < 1.0


def test_nothing_heavy_is_imported(write_lines: WriteLines, tmp_path: Path) -> None:
    source = write_lines("a.jsonl", ROWS)
    program = f"""
import json, sys
from pathlib import Path
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.tasks.input_specs import BaseSpec, DataSpec
from lorry_registry.tasks.task_spec import MethodSpec, TaskSpec
spec = TaskSpec(
    name="a", kind="text-classification", base=BaseSpec(model="/a"), method=MethodSpec(name="lora"),
    data=DataSpec(source={str(source)!r}),
)
prepare_data(resolve_task(spec), Path({str(tmp_path / "out")!r}))
heavy = ("torch", "transformers", "peft", "datasets", "kfp", "boto3")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_package_itself_imports_nothing() -> None:
    program = (
        "import sys, lorry_components.steps.prepare_data;"
        "print('pyarrow' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
