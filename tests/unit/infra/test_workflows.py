"""This project's workflows and those that ``lorry init`` writes: pinned, with few rights, and all real."""

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorry_pipelines.starting.repository import list_repository_files

ROOT = Path(__file__).resolve().parents[3]
OWN = {path.name: path.read_text("utf-8") for path in (ROOT / ".github/workflows").glob("*.yml")}
WRITTEN = {str(place): content for place, content in list_repository_files("./base").items()}
GITHUB = {
    **{f"own {name}": content for name, content in OWN.items()},
    **{name: content for name, content in WRITTEN.items() if name.startswith(".github")},
}
# What a job may run beside make: it sets up the machine, or shows a file.
_SETUP = (
    "apt-get update -qq && apt-get install -y -qq ",
    'git config --global --add safe.directory "$GITHUB_WORKSPACE"',
    'cat reports/report.md >> "$GITHUB_STEP_SUMMARY"',
)
_WRITES = {
    ("own release.yml", "images"): {"packages"},
    ("own release.yml", "publish"): {"id-token"},
    (".github/workflows/tasks.yml", "comment"): {"pull-requests"},
}


def load(content: str) -> dict[Any, Any]:
    document: dict[Any, Any] = yaml.safe_load(content)
    return document


def list_jobs(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from load(GITHUB[name])["jobs"].items()


def list_lines() -> Iterator[tuple[str, str]]:
    """Yield each line that a job runs, and where."""
    for name in GITHUB:
        for job, described in list_jobs(name):
            for step in described.get("steps", ()):
                if "run" in step:
                    yield f"{name} {job}", step["run"]
    for job, described in load(WRITTEN[".gitlab-ci.yml"]).items():
        if isinstance(described, dict):
            for line in [*described.get("script", ()), *described.get("after_script", ())]:
                yield f"gitlab {job}", line


@pytest.mark.parametrize("name", GITHUB)
def test_actions_are_pinned_by_commit_with_their_version_beside(name: str) -> None:
    used = re.findall(r"uses: (.+)", GITHUB[name])
    assert used
    for line in used:
        if not line.startswith("./"):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", line), line


@pytest.mark.parametrize("name", GITHUB)
def test_a_workflow_may_read_and_a_job_no_more_than_it_needs(name: str) -> None:
    document = load(GITHUB[name])
    assert document["permissions"] == {"contents": "read"}
    assert "group" in document["concurrency"]
    for job, described in list_jobs(name):
        rights = described.get("permissions", {})
        assert {right for right, level in rights.items() if level == "write"} == _WRITES.get(
            (name, job), set()
        )
        if "uses" not in described:
            assert described["timeout-minutes"] <= 360


def test_a_pull_request_gets_no_key_that_writes() -> None:
    content = WRITTEN[".github/workflows/tasks.yml"]
    document = load(content)
    # YAML 1.1 reads the key "on" as true.
    assert set(document[True]) == {"pull_request"}
    assert set(re.findall(r"secrets\.(\w+)", content)) == {"LORRY_READER_KEY_ID", "LORRY_READER_SECRET"}
    comment = document["jobs"]["comment"]
    # What may write has nothing of the change, and runs nothing.
    assert not [step for step in comment["steps"] if "run" in step or "checkout" in step.get("uses", "")]
    assert "head.repo.full_name == github.repository" in comment["if"]


@pytest.mark.parametrize("name", GITHUB)
def test_a_checkout_keeps_no_token(name: str) -> None:
    for _, described in list_jobs(name):
        for step in described.get("steps", ()):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_jobs_run_make_and_nothing_that_a_change_could_write_into() -> None:
    lines = list(list_lines())
    assert len(lines) > 30
    for where, line in lines:
        # An expression would be pasted into the shell: values come in as variables.
        assert "${{" not in line, where
        assert re.match(r"make [a-z-]+( |$)", line) or line.startswith(_SETUP), f"{where}: {line}"


def test_each_target_is_there(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(WRITTEN["Makefile"], "utf-8")
    for where, line in list_lines():
        if line.startswith("make "):
            folder = ROOT if where.startswith("own ") else tmp_path
            known = re.findall(r"^([a-z-]+):", (folder / "Makefile").read_text("utf-8"), re.MULTILINE)
            assert line.split()[1] in known, f"{where}: {line}"


def test_github_and_gitlab_do_the_same() -> None:
    found: dict[str, set[str]] = {"github": set(), "gitlab": set()}
    for where, line in list_lines():
        if line.startswith("make ") and not where.startswith("own "):
            found["gitlab" if where.startswith("gitlab") else "github"].add(line.split()[1])
    assert found["github"] == found["gitlab"]


@pytest.mark.parametrize("name", [*GITHUB, ".gitlab-ci.yml"])
def test_they_are_valid_by_the_platforms_schemas(name: str) -> None:
    found = importlib.util.find_spec("check_jsonschema")
    if found is None or found.origin is None:
        pytest.skip("the platforms' schemas are in check-jsonschema: make install")
    import jsonschema

    schemas = Path(found.origin).parent / "builtin_schemas/vendor"
    is_gitlab = name == ".gitlab-ci.yml"
    schema = json.loads(
        (schemas / f"{'gitlab-ci' if is_gitlab else 'github-workflows'}.json").read_text("utf-8")
    )
    document = load(WRITTEN[name] if is_gitlab else GITHUB[name])
    # As JSON has it: YAML 1.1 reads the key "on" as true.
    document = {"on" if key is True else key: value for key, value in document.items()}
    jsonschema.validators.validator_for(schema)(schema).validate(document)


@pytest.mark.parametrize(
    ("version", "code", "expected"),
    [("v0.1.0", 0, "first release"), ("0.1.0", 0, "first release"), ("v9.9.9", 1, "is not the version")],
)
def test_a_release_is_of_the_version_in_pyproject_and_has_a_text(
    version: str, code: int, expected: str
) -> None:
    result = subprocess.run(
        ["python3", str(ROOT / "infra/ci/print_changelog.py"), version],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code
    assert expected in result.stdout + result.stderr
