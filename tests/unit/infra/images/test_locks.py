"""The lock files agree with pyproject.toml and with each other, and hold nothing of who wrote them."""

import re
import tomllib
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[4]
LOCKS = REPOSITORY / "infra" / "images" / "locks"
NAMES = ("steps", "train", "serve", "torch-cpu", "torch-cuda", "build")
PINNED = re.compile(r"[a-z0-9][a-z0-9.-]*==[0-9][0-9a-z.]*")


def read_lock(name: str) -> dict[str, str]:
    """Return the version of each package; every line has to be of the one form that is known here."""
    versions = {}
    hashes = 0
    for line in (LOCKS / f"{name}.txt").read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        text = line.removesuffix("\\").strip()
        if text.startswith("--hash=sha256:"):
            assert re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", text), line
            hashes += 1
            continue
        assert PINNED.fullmatch(text), line
        assert line.endswith(" \\"), f"{line} has no hash"
        package, _, version = text.partition("==")
        assert package not in versions
        versions[package] = version
    assert hashes >= len(versions)
    return versions


def read_project() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_pinned_by_hash_and_nothing_names_an_index(name: str) -> None:
    assert read_lock(name)
    text = (LOCKS / f"{name}.txt").read_text("utf-8")
    for trace in ("://", "--index", "--extra-index", "--find-links", "+cpu", str(Path.home())):
        assert trace not in text


@pytest.mark.parametrize("torch", ["cpu", "cuda"])
def test_what_an_image_holds_is_what_pyproject_allows(torch: str) -> None:
    held = read_lock("steps") | read_lock("train") | read_lock("serve") | read_lock(f"torch-{torch}")
    project = read_project()["project"]
    extras = project["optional-dependencies"]
    used = ("train", "images", "signing", "serve")
    wanted = [*project["dependencies"], *chain(*(extras[name] for name in used))]
    wanted += extras["quantization"] if torch == "cuda" else []
    wanted += [line for line in extras["pipelines"] if line.startswith("kfp>")]
    excluded = read_excluded()
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name in excluded:
            continue
        assert name in held, f"{name}: run make lock"
        assert requirement.specifier.contains(held[name]), f"{name} {held[name]}: run make lock"


def test_the_environment_is_locked_but_for_torch() -> None:
    """The package index decides which build of torch there is, and with it what pins that."""
    text = (LOCKS / "constraints.txt").read_text("utf-8")
    held: dict[str, list[Requirement]] = {}
    for line in text.splitlines()[1:]:
        requirement = Requirement(line)
        held.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    assert not [name for name in held if re.match(r"(torch|nvidia|cuda|triton|setuptools)(-|$)", name)]
    project = read_project()["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name == "torch":
            assert "<" in str(requirement.specifier), "the upper bound is what the tests ran with"
            continue
        assert name in held, f"{name}: run make lock"
        for pinned in held[name]:
            (pin,) = pinned.specifier
            assert pin.operator == "==", pinned
            assert requirement.specifier.contains(pin.version), f"{pinned}: run make lock"
    here = {
        name: pin.version
        for name, pinned in held.items()
        for one in pinned
        if one.marker is None or one.marker.evaluate({"python_full_version": "3.11.7"})
        for pin in one.specifier
    }
    for lock in ("steps", "train", "serve"):
        differing = {name for name, version in read_lock(lock).items() if here.get(name, version) != version}
        assert not differing, f"{lock}: the image holds other versions: run make lock"


def test_the_slim_image_has_no_torch_and_nothing_is_in_two_layers() -> None:
    steps, train = read_lock("steps"), read_lock("train")
    assert not {"torch", "peft", "accelerate", "diffusers", "scipy", "scikit-learn", "matplotlib"} & set(
        steps
    )
    for name in ("train", "serve", "torch-cpu", "torch-cuda"):
        assert not set(read_lock(name)) & set(steps)
    for name in ("serve", "torch-cpu", "torch-cuda"):
        assert not set(read_lock(name)) & set(train)
    for name in ("steps", "train", "serve", "torch-cpu", "torch-cuda"):
        assert not set(read_lock(name)) & {*read_excluded(), "pip", "wheel"}


def test_torch_is_the_same_version_by_other_hashes() -> None:
    cpu, cuda = (find_hashes(name, "torch") for name in ("torch-cpu", "torch-cuda"))
    assert read_lock("torch-cpu")["torch"] == read_lock("torch-cuda")["torch"]
    assert cpu
    assert cuda
    assert not cpu & cuda
    assert not [name for name in read_lock("torch-cpu") if name.startswith(("nvidia", "cuda", "triton"))]


def test_the_wheel_is_built_with_what_pyproject_names() -> None:
    held = read_lock("build")
    for requirement in map(Requirement, read_project()["build-system"]["requires"]):
        assert requirement.specifier.contains(held[canonicalize_name(requirement.name)])


def test_a_requirement_without_a_hash_is_not_written(
    load_script: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = load_script("lock")
    monkeypatch.setattr(lock, "FOLDER", tmp_path)
    with pytest.raises(SystemExit, match="numpy has no hash"):
        lock.write_lock("steps", {"numpy": ["numpy==2.4.6"]})
    assert not (tmp_path / "locks").exists()


def test_what_uv_writes_is_read_back(load_script: Callable[[str], Any]) -> None:
    lock = load_script("lock")
    text = f"# a note\nnumpy==2.4.6 \\\n    --hash=sha256:{'a' * 64}\n    # via lorry\n"
    text += "zipp==4.1.2 \\\n    --hash=x\n"
    blocks = lock.read_blocks(text)
    assert blocks["numpy"] == ["numpy==2.4.6 \\", f"    --hash=sha256:{'a' * 64}"]
    assert lock.subtract(blocks, ["numpy"]) == {"zipp": ["zipp==4.1.2 \\", "    --hash=x"]}
    assert lock.find_version(blocks["numpy"]) == "2.4.6"


def find_hashes(name: str, package: str) -> set[str]:
    text = (LOCKS / f"{name}.txt").read_text("utf-8")
    block = re.search(rf"^{package}==.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    return set(re.findall(r"sha256:([0-9a-f]{64})", block.group()))


def read_excluded() -> set[str]:
    lines = (REPOSITORY / "infra" / "images" / "excluded.txt").read_text("utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}
