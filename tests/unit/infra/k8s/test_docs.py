"""The pages about clusters say what is: files render, commands are kubectl's, tables are complete."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.clusters import COMPONENTS, K8S, OVERLAYS, Objects, Render, run_kustomize

PAGE = "".join(
    (K8S.parents[1] / "docs" / name).read_text(encoding="utf-8")
    for name in ("cluster-setup.md", "kubernetes.md")
)
# The kustomization, and what some wishes add to it.
YAML_BLOCKS = [
    block
    for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    if "patches" in (block := yaml.safe_load(text))
]
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
# A pipe, a redirection or the end of a substitution ends a command.
KUBECTL = [re.split(r"\s(?:[|&<>]|#)", line)[0] for line in re.findall(r"kubectl [^`\n]*", SHELL)]

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed (Debian: kubernetes-client)"
)


def read_table(first: str) -> list[list[str]]:
    """The rows of the table whose first heading this is."""
    lines = PAGE[PAGE.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def read_names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("extra", range(len(YAML_BLOCKS)))
def test_the_files_of_the_pages_render_and_are_sound(
    tmp_path: Path, policies: Any, needs: Any, extra: int
) -> None:
    own, *additions = YAML_BLOCKS
    content = yaml.safe_load(yaml.safe_dump(own).replace("sha256:DIGEST", f"sha256:{'a' * 64}"))
    component = {"PGHOST": "external-postgres", "role-arn": "workload-identity"}
    if extra:
        addition = additions[extra - 1]
        content["patches"] += addition["patches"]
        content["components"] += [
            f"../infra/k8s/components/{name}" for mark, name in component.items() if mark in str(addition)
        ]
    up = os.path.relpath(K8S.parents[1], tmp_path)
    text = yaml.safe_dump(content).replace("../infra", f"{up}/infra")
    (tmp_path / "kustomization.yaml").write_text(text, encoding="utf-8")
    objects = run_kustomize(tmp_path)
    assert [str(fault) for fault in policies.check_objects(objects, needs)] == []
    if extra:
        # Every patch has changed something: what it says is in what was rendered.
        wanted = yaml.safe_load(additions[extra - 1]["patches"][-1]["patch"])
        values = [*(wanted.get("data") or {}).values(), *wanted["metadata"].get("annotations", {}).values()]
        assert all(value in str(objects) for value in values)


def test_the_pages_list_every_component_and_both_overlays() -> None:
    assert sorted(read_names(row[0])[0] for row in read_table("Component")) == sorted(COMPONENTS)
    assert all(f"overlays/{name}" in PAGE for name in OVERLAYS)


def test_the_pages_list_every_secret_with_its_keys(needs: Any) -> None:
    listed = {read_names(row[0])[0]: read_names(row[1]) for row in read_table("Secret")}
    assert listed == needs.secrets


def test_the_pages_explain_every_network_policy(everything: Objects, render: Render) -> None:
    rendered = [*everything, *render("gpu", ["workload-identity"])]
    listed = {name for row in read_table("Policy") for name in read_names(re.sub(r"\(.*\)", "", row[0]))}
    assert listed == {item["metadata"]["name"] for item in rendered if item["kind"] == "NetworkPolicy"}


def test_the_commands_for_secrets_make_the_keys_that_are_needed(tmp_path: Path, needs: Any) -> None:
    (block,) = [text for text in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "mktemp" in text]
    # Nobody is there to be asked for a password.
    block = block.replace("$(openssl passwd -6)", "$(printf secret | openssl passwd -6 -stdin)")
    shim = 'kubectl() { command kubectl "$@" --dry-run=client --output=yaml; echo ---; }\n'
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", shim + block],
        env={
            **os.environ,
            "AWS_ACCESS_KEY_ID": "AKIA",
            "AWS_SECRET_ACCESS_KEY": "key",
            "TMPDIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    made = {item["metadata"]["name"]: item["data"] for item in yaml.safe_load_all(finished.stdout) if item}
    assert {name: sorted(data) for name, data in made.items()} == {
        name: sorted(needs.secrets[name])
        for name in ("mlflow-login", "lorry-mlflow", "mlflow-database", "lorry-s3")
    }
    assert made["lorry-mlflow"]["password"] != made["mlflow-database"]["password"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", sorted(set(KUBECTL)))
def test_every_command_is_one_that_kubectl_knows(command: str) -> None:
    # kubectl refuses an unknown flag before it prints the help; what comes after -- is not its own.
    own = re.split(r" -- | \$\(", command)[0].replace('"', "")
    finished = subprocess.run(
        [*own.split(), "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "Usage:" in finished.stdout


def test_the_cluster_profile_takes_its_variables_from_these_secrets(needs: Any) -> None:
    profile = yaml.safe_load((K8S / "profile.yaml").read_text(encoding="utf-8"))
    for secret in profile["secrets"]:
        assert set(secret["variables"]) <= set(needs.secrets[secret["name"]])


def test_the_pages_have_commands() -> None:
    assert len(set(KUBECTL)) > 15
