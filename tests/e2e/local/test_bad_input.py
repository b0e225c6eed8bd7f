"""What is wrong with a command or with where it writes: one message, its exit code, and nothing is begun."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

# A list of nine lists of nine lists, and so on: a few hundred bytes that expand to billions of values.
_NESTED_ALIASES = b"a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (level, level, b",".join([b"*a%d" % (level - 1)] * 9)) for level in range(1, 11)
)


@pytest.fixture(scope="module")
def known(make_workspace: Callable[[str], Any]) -> Any:
    """A workspace with a task file that was never run."""
    workspace = make_workspace("known")
    workspace.write_task("reviews")
    return workspace


def check_message(err: str, *parts: str) -> None:
    """One error: what, where, and what to do."""
    assert err.count("error: ") == 1, err
    assert "\n  -> " in err, err
    for part in parts:
        assert part in err, err


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["run", "nosuch.yaml"], 3, ["nosuch.yaml", "there is no such file"]),
        (["run", "reviewz.yaml"], 3, ["did you mean 'reviews.yaml'?"]),
        (["validate", "."], 3, ["folder"]),
        (["run", "reviews.yaml", "reviews.yaml"], 2, ["more than one file describes task reviews"]),
        (["run", "reviews.yaml", "--set", "train.epoch=1"], 3, ["train.epoch"]),
        (["run", "reviews.yaml", "--set", "train"], 2, ["FIELD=VALUE"]),
        (
            ["compile", "reviews.yaml", "--target", "local", "-o", "nosuch/lorry.yaml"],
            9,
            ["nosuch/lorry.yaml", "cannot be written"],
        ),
        (["compile", "reviews.yaml", "-o", "lorry.json"], 2, ["lorry.json"]),
        (["predict", "reviews", "--file", "nosuch.txt"], 4, ["nosuch.txt", "there is no such file"]),
        (["predict", "reviews"], 7, ["there is no task 'reviews'"]),  # its standard input is read
        (["predict", "reviews", "a", "--pair", "b", "--pair", "c"], 2, ["--pair"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_arguments(known: Any, arguments: list[str], code: int, parts: list[str]) -> None:
    check_message(known.run(*arguments, code=code).err, *parts)
    assert not known.home.exists()


def test_ten_faults_are_told_at_once(workspace: Any) -> None:
    (workspace.folder / "faulty.yaml").write_text(
        """name: Not A Name
kind: text-clasification
base: {model: nowhere}
data:
  source: rows.jsonl
  max_length: 2
  split: {validation: 0.6, test: 0.6}
method: {name: lorra}
train:
  epochs: -1
  batch_size: 0
  learning_rate: fast
evaluate: {resamples: 3}
gate: {confidence: 3}
colour: blue
"""
    )
    for command in ("validate", "run"):
        err = workspace.run(command, "faulty.yaml", code=3).err
        check_message(
            err,
            "faulty.yaml: 12 faults",
            "line 1, name: ",
            "line 2, kind: there is no kind 'text-clasification'; did you mean 'text-classification'?",
            "line 3, base: ",
            "line 6, data.max_length: ",
            "line 7, data.split: ",
            "line 8, method.name: there is no method 'lorra'; did you mean 'lora'?",
            "line 10, train.epochs: ",
            "line 11, train.batch_size: ",
            "line 12, train.learning_rate: ",
            "line 13, evaluate.resamples: ",
            "line 14, gate.confidence: ",
            "line 15, colour: there is no such field",
        )
    assert not workspace.home.exists()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "a task is a mapping"),
        (b"name: a\n  kind: [\n", "not YAML"),
        (b"name: \xff\xfe\n", "cannot be read as text"),
        (b"x" * 2_000_000, "too many for a task file"),
        (b"name: a\nname: b\n", "given already on line 1"),
        (_NESTED_ALIASES, "its aliases repeat more than 10,000 values; write out what is meant"),
    ],
    ids=["empty", "broken", "not UTF-8", "2 MB", "a key twice", "nested aliases"],
)
def test_not_a_task_file(workspace: Any, content: bytes, part: str) -> None:
    (workspace.folder / "task.yaml").write_bytes(content)
    check_message(workspace.run("validate", "task.yaml", code=3).err, "task.yaml", part)


@pytest.mark.parametrize("place", ["{folder}/reviews.yaml/store", "/proc/nosuch", "gopher://a/b"])
def test_store_that_cannot_be_written(known: Any, place: str) -> None:
    place = place.format(folder=known.folder)
    finished = known.run("run", "reviews.yaml", code=9, LORRY_STORE=place)
    check_message(finished.err, place, "LORRY_STORE")
    assert not known.list_runs()


def test_home_that_cannot_be_written(known: Any, tmp_path: Path) -> None:
    elsewhere = {"LORRY_STORE": str(tmp_path / "store"), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db"}
    finished = known.run("run", "reviews.yaml", code=9, LORRY_HOME="/proc/nosuch", **elsewhere)
    check_message(finished.err, "/proc/nosuch", "LORRY_HOME")


def test_mlflow_that_cannot_be_reached(known: Any) -> None:
    finished = known.run(
        "run", "reviews.yaml", code=13, MLFLOW_TRACKING_URI="http://someone:secret@127.0.0.1:1"
    )
    check_message(finished.err, "127.0.0.1:1", "MLFLOW_TRACKING_URI")
    assert "secret" not in finished.err
    assert finished.seconds < 30  # It was 250: MLflow tries again and again.
    assert not known.list_runs()


@pytest.mark.slow
def test_disk_of_the_store_is_full(workspace: Any, make_disk: Callable[[str], Path]) -> None:
    """Room for the outcomes of four steps and for half an adapter."""
    workspace.write_task("reviews")
    workspace.store = make_disk("28k") / "store"
    finished = workspace.run("run", "reviews.yaml", code=9, LORRY_STORE=str(workspace.store))
    check_message(finished.err, str(workspace.store), "No space left on device")
    assert workspace.read_outcome("reviews", "gate")["status"] == "done"
    assert workspace.list_adapters() == []
    workspace.run("show", "reviews", code=7, LORRY_STORE=str(workspace.store))
    assert "nothing to verify" in workspace.run("verify", "--all", LORRY_STORE=str(workspace.store)).out
    assert not list((workspace.store / ".scratch").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "size", ["72k", *(pytest.param(size, marks=pytest.mark.exhaustive) for size in ("28k", "104k"))]
)
def test_disk_of_the_run_is_full(
    workspace: Any, make_disk: Callable[[str], Path], tmp_path: Path, size: str
) -> None:
    """No room for what the steps write, be it the prepared data or something later."""
    workspace.write_task("reviews")
    workspace.home = make_disk(size) / "home"
    elsewhere = {"LORRY_STORE": str(tmp_path / "store"), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db"}
    finished = workspace.run("run", "reviews.yaml", code=12, **elsewhere)
    check_message(finished.err, "reviews", "space")


@pytest.mark.slow
def test_disk_of_mlflow_is_full(workspace: Any, make_disk: Callable[[str], Path]) -> None:
    workspace.write_task("reviews")
    workspace.home = make_disk("200k") / "home"
    finished = workspace.run("run", "reviews.yaml", code=13)
    check_message(finished.err, "mlflow.db", "full")


def test_yaml_that_imports_nothing(workspace: Any) -> None:
    path = workspace.write_task("reviews")
    document = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump(document) + "owner: !!python/object/apply:os.getcwd []\n")
    check_message(workspace.run("validate", "reviews.yaml", code=3).err, "not YAML", "reviews.yaml")
