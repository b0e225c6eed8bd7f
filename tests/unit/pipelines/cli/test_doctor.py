"""``lorry doctor``: its lines, its exit code, and an installation without extras."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click.testing
import pytest
from click.testing import CliRunner

from lorry_pipelines.cli import lorry
from lorry_pipelines.diagnosis import Finding

Doctor = Callable[..., click.testing.Result]

# As `pip install lorry` leaves it: whatever the extras bring cannot be imported.
_WITHOUT_EXTRAS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "peft", "datasets", "kfp", "docker", "numpy",
                                      "pandas", "sqlalchemy", "pyarrow"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Absent())
import importlib.util
find = importlib.util.find_spec

def find_or_none(name, *rest):
    try:
        return find(name, *rest)
    except ModuleNotFoundError:
        return None

importlib.util.find_spec = find_or_none
from lorry_pipelines.cli import main
main()
"""


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Return a function that runs the command in a folder of its own, without a look at torch."""
    for name in [name for name in os.environ if name.startswith(("LORRY_", "MLFLOW_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    devices = [Finding("accelerators", "ok", "none")]
    monkeypatch.setattr("lorry_pipelines.cli.doctor.check_devices", lambda *_: devices)

    def run(*arguments: str, code: int = 0) -> click.testing.Result:
        result = CliRunner().invoke(lorry, ["doctor", *arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return run


def test_a_new_folder_is_well_and_stays_empty(doctor: Doctor, tmp_path: Path) -> None:
    output = doctor().output
    for heading in ("Settings", "Store", "MLflow", "Libraries", "Machine"):
        assert f"\n{heading}\n" in output
    assert "made by the first run" in output
    assert output.endswith("no failures, no warnings\n") or "warning" in output
    assert list(tmp_path.iterdir()) == []


def test_settings_that_are_not_set_are_shown_on_request(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORRY_CACHE_SIZE", "3Gi")
    pattern = r"defaults +(\d+ settings are not set); to see them: lorry doctor --all"
    (line,) = re.findall(pattern, doctor().output)
    output = doctor("--all").output
    assert line == f"{output.count('(default)')} settings are not set"
    for shown in (doctor().output, output):
        assert re.search(r"cache_size +3Gi +\(LORRY_CACHE_SIZE\)", shown)


def test_a_failure_has_a_remedy_and_an_exit_code(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:geheim@127.0.0.1:9")
    output = doctor(code=1).output
    (line,) = (line for line in output.splitlines() if "failure " in line and "MLflow" in line)
    assert "http://***@127.0.0.1:9: cannot reach it" in line
    assert "-> check that MLFLOW_TRACKING_URI is right and that MLflow is up" in output
    assert "1 failure" in output
    assert "geheim" not in output


def test_machines_read_json(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORRY_STORE", "ftp://user:geheim@host/x")
    result = doctor("--json", code=1)
    document = json.loads(result.stdout)
    (store,) = (entry for entry in document if entry["section"] == "Store")
    assert (store["subject"], store["level"]) == ("store", "failure")
    assert "no store serves addresses of the form ftp://" in store["text"]
    assert "geheim" not in result.output
    (python,) = (entry for entry in document if entry["subject"] == "Python")
    assert python["details"]["version"].startswith("3.")


def test_wrong_settings_hide_nothing_else(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "lorry.toml").write_text("stoer = 1\n", "utf-8")
    output = doctor(code=1).output
    assert "stoer: unknown setting" in output
    assert "Libraries" in output
    assert "processor" in output


def test_the_registry_alone_can_be_examined(tmp_path: Path) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LORRY_", "MLFLOW_", "AWS_"))
    }
    finished = subprocess.run(
        [sys.executable, "-c", _WITHOUT_EXTRAS, "doctor", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    texts = {entry["subject"]: entry["text"] for entry in json.loads(finished.stdout)}
    assert texts["accelerators"] == "torch is not installed"
    assert "docker is not installed" in texts["containers"]
    assert "needs sqlalchemy, which is not installed" in texts["MLflow"]
