"""``lorry compare``: what it prints, refuses, keeps and takes over."""

import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TaskFile = Callable[..., Path]

# Four steps from a random head end in one answer for all rows; then nothing is recommended.
FITTED: dict[str, Any] = {"head": {"init": "probe"}, "train": {"learning_rate": 1e-4}}


def test_a_comparison_is_printed_kept_and_taken_over(invoke: Any, task_file: TaskFile) -> None:
    file = task_file(**FITTED)
    result = invoke("compare", file, "--no-probe", "--methods", "lora,bitfit", "--seeds", "0,1")
    assert result.exit_code == 0, result.output
    assert invoke.ran == ["lora, seed 0", "bitfit, seed 0", "lora, seed 1", "bitfit, seed 1"]
    for text in (
        "warning: MLflow does not show this study",
        "Method   Seeds",
        "vs best",
        "1,024",
        "the head, which adds 99",
        "Recommended",
        "method: {name: ",
    ):
        assert text in result.output
    (folder,) = (invoke.home / "studies").glob("compare-tiny-*")
    assert (folder / "plot.png").stat().st_size > 5000
    kept = json.loads((folder / "results.json").read_text("utf-8"))
    assert [row["label"] for row in kept["rows"]] == ["lora", "bitfit"]
    assert kept["recommendation"]["label"] in ("lora", "bitfit")
    # Nothing is registered.
    assert not (invoke.home / "store").exists()

    again = invoke("compare", file, "--no-probe", "--methods", "lora,bitfit", "--seeds", "0,1")
    assert again.exit_code == 0, again.output
    assert invoke.ran == []
    assert "4 trials, 4 of them done before" in again.output

    larger = invoke(
        "compare",
        task_file(**FITTED),
        "--no-probe",
        "--methods",
        "full,lora",
        "--seeds",
        "0",
        "--against",
        "full",
    )
    assert larger.exit_code == 0, larger.output
    assert invoke.ran == ["full, seed 0"]
    assert "vs full" in larger.output


@pytest.mark.parametrize("head", [{"init": "random"}, {"pooling": "transformers"}])
def test_the_linear_probe_is_compared_by_default(
    invoke: Any, task_file: TaskFile, head: dict[str, str]
) -> None:
    # Neither what the file says of training nor what is set for all methods is about it.
    result = invoke("compare", task_file(head=head), "--methods", "lora", "--set", "method.r=2")
    assert result.exit_code == 0, result.output
    assert invoke.ran == ["lora, seed 0", "probe, seed 0"]
    (folder,) = (invoke.home / "studies").glob("compare-tiny-*")
    rows = {row["label"]: row for row in json.loads((folder / "results.json").read_text("utf-8"))["rows"]}
    assert rows["probe"]["trained_parameters"] == 0
    assert rows["probe"]["seconds"] > 0
    against = invoke("compare", task_file(), "--methods", "lora", "--against", "probe")
    assert "vs probe" in against.output
    # It may be named, and is then not there twice.
    named = invoke("compare", task_file(), "--methods", "probe")
    assert named.exit_code == 0, named.output
    assert "method: {name: probe}\ntrain: {}" in named.output


def test_what_to_expect_of_soft_tokens_is_told_first(invoke: Any, task_file: TaskFile) -> None:
    methods = "prompt-tuning:tokens=2,prompt-tuning:tokens=3"
    result = invoke("compare", task_file(**FITTED), "--no-probe", "--methods", methods)
    assert result.stderr.count("note: prompt-tuning is not expected to learn much") == 1


def test_rows_as_json(invoke: Any, task_file: TaskFile, tmp_path: Path) -> None:
    result = invoke(
        "compare",
        task_file(**FITTED),
        "--no-probe",
        "--methods",
        "lora:r=2",
        "--json",
        "--output",
        tmp_path / "out",
    )
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert row["label"] == "lora r=2"
    assert row["options"] == {"r": 2, "targets": ["query", "value"]}
    assert row["metric"] == "accuracy"
    assert row["interval"][0] <= row["value"] <= row["interval"][1]
    assert row["trained_parameters"] == 512
    assert row["head_parameters"] == 99
    assert row["seeds"] == [0]
    assert row["peak_memory_bytes"] > 0
    assert row["seconds"] > 0
    assert row["recommended"] is True
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"plot.png", "results.json"}


def test_a_training_that_fails_is_told_and_tried_again(invoke: Any, task_file: TaskFile) -> None:
    methods = "lora,bitfit:max_adapter_mib=0.0001"
    result = invoke("compare", task_file(**FITTED), "--no-probe", "--methods", methods)
    assert result.exit_code == 12, result.output
    assert "bitfit max_adapter_mib=0.0001   " in result.output
    assert "failed" in result.output
    assert "above the limit of 0.0001 MiB" in result.output
    assert "lora is the only one to choose from" in result.output
    # Lines of a reason are wrapped, and begin with a mark.
    assert "1 that failed is left out" in " ".join(result.output.replace("#", " ").split())
    invoke("compare", task_file(**FITTED), "--no-probe", "--methods", methods)
    assert invoke.ran == ["bitfit max_adapter_mib=0.0001, seed 0"]


def test_nothing_is_trained_when_something_is_wrong(invoke: Any, task_file: TaskFile) -> None:
    result = invoke("compare", task_file(), "--no-probe", "--methods", "lora:r=99,lorra", "--against", "full")
    assert result.exit_code == 3
    for text in ("rank 99 is above", "did you mean 'lora'?", "--against full", "nothing was trained"):
        assert text in result.output
    assert invoke.ran == []
    assert not (invoke.home / "studies").exists()


@pytest.mark.parametrize("seeds", ["a", "1,1", "-1", "", ","])
def test_seeds_that_are_none(seeds: str, invoke: Any, task_file: TaskFile) -> None:
    result = invoke("compare", task_file(), "--no-probe", "--methods", "lora", "--seeds", seeds)
    assert result.exit_code == 2
    assert invoke.ran == []


def test_what_does_not_fit_is_refused_unless_forced(invoke: Any, task_file: TaskFile) -> None:
    path = task_file(resources={"memory": "100Mi"})
    result = invoke("compare", path, "--no-probe", "--methods", "lora,bitfit")
    assert result.exit_code == 3
    assert "lora: 100Mi is less than lora takes" in result.output
    assert "bitfit: 100Mi is less than bitfit takes" in result.output
    assert invoke.ran == []
    assert invoke("compare", path, "--no-probe", "--methods", "lora", "--force").exit_code == 0


def test_the_same_study_twice_at_once_is_refused(invoke: Any, task_file: TaskFile) -> None:
    assert invoke("compare", task_file(), "--no-probe", "--methods", "lora").exit_code == 0
    (folder,) = (invoke.home / "studies").glob("compare-tiny-*")
    with (invoke.home / "locks" / f"{folder.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        result = invoke("compare", task_file(), "--no-probe", "--methods", "lora")
    assert result.exit_code == 8
    assert "another run of it is going on" in result.output


def test_another_study_of_the_task_goes_on_beside_and_its_cells_are_waited_for(
    invoke: Any, task_file: TaskFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke("compare", task_file(), "--no-probe", "--methods", "lora").exit_code == 0
    (trial,) = (invoke.home / "studies" / "cells").iterdir()
    (trial / "result.json").rename(tmp_path / "result.json")
    stream = (trial / "lock").open("w")
    fcntl.flock(stream, fcntl.LOCK_EX)

    def finish(_: Path) -> str:
        """Do as another study that ends when this one is about to wait for it."""
        assert invoke.ran == ["bitfit, seed 0"]
        (tmp_path / "result.json").rename(trial / "result.json")
        stream.close()
        return "7"

    monkeypatch.setattr("lorry_pipelines.studies.study_run.read_holder", finish)
    result = invoke("compare", task_file(), "--no-probe", "--methods", "lora,bitfit")
    assert result.exit_code == 0, result.output
    assert invoke.ran == ["bitfit, seed 0"]
    assert "lora, seed 0: another study is running it (process 7); waiting" in result.output


def test_wordings_that_read_alike_are_run_once(
    invoke: Any, task_file: TaskFile, cloze: str, tmp_path: Path
) -> None:
    path = task_file(kind=cloze, data={"template": "{text}"}, method={"name": "bitfit"})
    wordings = tmp_path / "wordings.txt"
    wordings.write_text("{text} is good\n[P] {text} is good\n")
    arguments = ("compare", path, "--grid", f"template=@{wordings}", "--methods", "bitfit", "--json")
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert invoke.ran == ["1 untrained", "1 bitfit, seed 0"]
    rows = json.loads(result.stdout)
    assert [row["label"] for row in rows] == ["1 untrained", "1 bitfit", "2 untrained", "2 bitfit"]
    assert rows[0]["values"] == rows[2]["values"] != []
    assert rows[1]["values"] == rows[3]["values"] != []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--methods", "lora,lora:train.seed=1"), "lora seed=1: train.seed"),
        (("--methods", "lora", "--set", "train.seed=1"), "--set train.seed"),
    ],
)
def test_a_seed_that_is_the_studys_is_refused(
    arguments: tuple[str, ...], told: str, invoke: Any, task_file: TaskFile
) -> None:
    result = invoke("compare", task_file(), "--no-probe", *arguments)
    assert result.exit_code == 3
    assert told in result.output
    assert "give --seeds" in result.output
    assert invoke.ran == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("compare", "--methods", "lora,bitfit", "--set", "method.name=full"), "name methods in --methods"),
        (
            ("compare", "--methods", "lora,bitfit", "--set", "method.r=2"),
            "bitfit: method.r: bitfit has no option 'r'; known are none (--set applies to all)",
        ),
        (("compare", "--grid", "r=1", "--set", "method.r=2"), "give its values in --grid"),
        (("compare", "--grid", "targets=q", "--set", "method.q=2"), "method.q: lora has no option 'q'"),
        (("compare", "--grid", "template={text}", "--set", "data.template=x"), "give its values in --grid"),
    ],
)
def test_settings_that_reach_nobody_are_refused(
    arguments: tuple[str, ...], told: str, invoke: Any, task_file: TaskFile
) -> None:
    result = invoke(arguments[0], task_file(), *arguments[1:])
    assert result.exit_code == 3, result.output
    assert told in result.output
    assert invoke.ran == []


def test_equal_labels_are_refused(invoke: Any, task_file: TaskFile) -> None:
    result = invoke("compare", task_file(), "--no-probe", "--methods", "lora:r=2,lora:r='2',lora:r=3")
    assert result.exit_code == 3
    assert "lora r=2: 2 variants would have this name" in result.output
    assert invoke.ran == []


def test_changed_data_is_another_cell(invoke: Any, task_file: TaskFile, tmp_path: Path) -> None:
    path = task_file()
    source = tmp_path / "rows.jsonl"
    shutil.copy(json.loads(invoke("validate", path, "--json").stdout)[0]["data"]["source"], source)
    path = task_file(data={"source": str(source)})
    assert invoke("compare", path, "--no-probe", "--methods", "lora").exit_code == 0
    with source.open("a") as stream:
        stream.write('{"text": "a very dull story 9 9 9", "label": "no"}\n')
    assert invoke("compare", path, "--no-probe", "--methods", "lora").exit_code == 0
    assert invoke.ran == ["lora, seed 0"]


def test_the_study_of_ranks(invoke: Any, task_file: TaskFile) -> None:
    result = invoke("compare", task_file(**FITTED), "--grid", "r=1,2,3")
    assert result.exit_code == 0, result.output
    assert invoke.ran == ["lora r=1, seed 0", "lora r=2, seed 0", "lora r=3, seed 0"]
    for text in ("lora r=3", "targets: [query, value]"):
        assert text in result.output
    (folder,) = (invoke.home / "studies").glob("compare-r-tiny-*")
    assert (folder / "plot.png").stat().st_size > 5000
    kept = json.loads((folder / "results.json").read_text("utf-8"))
    assert kept["grid"] == {"r": [1, 2, 3]}
    assert [row["grid"] for row in kept["rows"]] == [1, 2, 3]
    assert [row["trained_parameters"] for row in kept["rows"]] == [256, 512, 768]
    # The same trainings, named one by one.
    same = invoke("compare", task_file(**FITTED), "--no-probe", "--methods", "lora:r=1,lora:r=3")
    assert same.exit_code == 0, same.output
    assert invoke.ran == []
    against = invoke("compare", task_file(**FITTED), "--grid", "r=1,2,3", "--against", "lora:r=2")
    assert "vs lora r=2" in against.output


def test_ranks_that_cannot_be(invoke: Any, task_file: TaskFile) -> None:
    result = invoke("compare", task_file(), "--grid", "r=0,99")
    assert result.exit_code == 3
    assert "lora r=0: method.r" in result.output
    assert "rank 99 is above" in result.output


def test_something_is_compared(invoke: Any, task_file: TaskFile) -> None:
    result = invoke("compare", task_file())
    assert result.exit_code == 2
    assert "give --methods, --grid or both" in result.output


def test_the_study_of_targets(invoke: Any, task_file: TaskFile) -> None:
    result = invoke("compare", task_file(), "--grid", "targets=o,qv,qkvo")
    assert result.exit_code == 0, result.output
    assert "each lora trains at most 1,024 parameters" in result.output
    rows = json.loads(invoke("compare", task_file(), "--grid", "targets=o,qv,qkvo", "--json").stdout)
    assert {row["grid"]: (row["label"], row["rank"], row["trained_parameters"]) for row in rows} == {
        "o": ("lora targets=o r=8", 8, 1024),
        "qv": ("lora targets=qv r=4", 4, 1024),
        "qkvo": ("lora targets=qkvo r=2", 2, 1024),
    }


def test_the_study_of_prompts(invoke: Any, task_file: TaskFile, cloze: str, tmp_path: Path) -> None:
    path = task_file(kind=cloze, data={"template": "{text}"}, method={"name": "p-tuning", "tokens": 3})
    wordings = tmp_path / "wordings.txt"
    wordings.write_text("{text} is good\n{text} was bad\n")
    grid = f"template=@{wordings},the {{text}}"
    result = invoke("compare", path, "--grid", grid, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["wording"], row["with"], row["trained_parameters"] > 0) for row in rows] == [
        (1, "untrained", False),
        (1, "p-tuning", True),
        (2, "untrained", False),
        (2, "p-tuning", True),
        (3, "untrained", False),
        (3, "p-tuning", True),
    ]
    shown = invoke("compare", path, "--grid", grid)
    assert invoke.ran == []
    assert "2: {text} was bad" in shown.output
    assert "spread over prompts" in shown.output


def test_prompts_need_a_kind_that_reads_them(invoke: Any, task_file: TaskFile) -> None:
    result = invoke("compare", task_file(), "--grid", "template={text}")
    assert result.exit_code == 3
    assert "reads its texts as they are" in result.output
    assert invoke("compare", task_file(), "--grid", "template=").exit_code == 3
    assert invoke("compare", task_file(), "--grid", "template=@nowhere.txt").exit_code == 3
