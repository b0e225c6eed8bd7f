"""The command that a user runs over an overlay of one's own."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fixtures.clusters import K8S, Objects, Render, find_object

SCRIPT = K8S / "check.py"


def run_check(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_sound_objects_pass(everything: Objects, tmp_path: Path) -> None:
    file = tmp_path / "rendered.yaml"
    file.write_text(yaml.safe_dump_all(everything), encoding="utf-8")
    finished = run_check(str(file))
    assert (finished.returncode, finished.stdout) == (0, f"{len(everything)} objects, 0 faults\n")


def test_every_fault_is_listed_with_what_to_do(render: Render) -> None:
    finished = run_check("-", text=yaml.safe_dump_all(render("gpu", decided=False)))
    lines = finished.stdout.splitlines()
    assert finished.returncode == 1
    assert any("kustomize edit set image unset.invalid/postgres=NAME@sha256:DIGEST" in line for line in lines)
    assert lines[-1].endswith(f"{len(lines) - 1} faults")


def test_needs_of_ones_own_are_accepted(everything: Objects, tmp_path: Path) -> None:
    objects = copy.deepcopy(everything)
    pod = find_object(objects, "Deployment", "mlflow")["spec"]["template"]["spec"]
    pod["imagePullSecrets"] = [{"name": "registry"}]
    text = yaml.safe_dump_all(objects)
    assert "Secret 'registry' is neither" in run_check("-", text=text).stdout
    content = yaml.safe_load((K8S / "needs.yaml").read_text(encoding="utf-8"))
    content["secrets"]["registry"] = [".dockerconfigjson"]
    needs = tmp_path / "needs.yaml"
    needs.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert run_check("-", "--needs", str(needs), text=text).returncode == 0


@pytest.mark.parametrize("content", ["", "secrets: {}", "[]", "a: ["])
def test_needs_that_are_none_are_told(everything: Objects, tmp_path: Path, content: str) -> None:
    needs = tmp_path / "needs.yaml"
    needs.write_text(content, encoding="utf-8")
    finished = run_check("-", "--needs", str(needs), text=yaml.safe_dump_all(everything))
    assert (finished.returncode, finished.stdout, "Traceback" in finished.stderr) == (2, "", False)
    assert str(needs) in finished.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no object in it"),
        ("a: [", "this is not YAML"),
        ("just words", "document 1 is no Kubernetes object"),
        ("{apiVersion: v1, kind: Service, metadata: {name: x}}", "not formed as Kubernetes expects"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: []}", "not formed as Kubernetes expects"),
    ],
)
def test_what_is_no_object_is_told(text: str, message: str) -> None:
    finished = run_check("-", text=text)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    finished = run_check(str(tmp_path / "none.yaml"))
    assert finished.returncode == 2
    assert "none.yaml" in finished.stderr
