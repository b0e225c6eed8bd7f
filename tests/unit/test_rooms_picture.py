"""The pictures of the rooms in CONTRIBUTING.md show what import-linter keeps; a module name is used once."""

import collections
import itertools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "registry/lorry_registry",
    "components/lorry_components",
    "pipelines/lorry_pipelines",
    "infra/stack/lorry_stack",
)
# One in each step's folder, or the interface that the modules beside it implement.
IN_EACH_FOLDER = {"__init__", "__main__", "base", "component", "entry", "step"}


def read_arrows(picture: int) -> set[tuple[str, str]]:
    """Return the arrows of a picture as pairs, ``a --> b & c`` and ``a --> b --> c`` taken apart."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    drawn = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)[picture]
    arrows: set[tuple[str, str]] = set()
    for line in re.sub(r"\[.*?\]", "", drawn).splitlines():
        ends = [re.findall(r"[a-z_]+", end) for end in line.split("-->")]
        for higher, lower in itertools.pairwise(ends):
            arrows |= {(start, end) for start in higher for end in lower}
    return arrows


def read_layers(container: str | None) -> list[list[str]]:
    """Return the layers of a contract, the highest first: inside a package, or of the packages."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = [
        contract["layers"]
        for contract in contracts
        if contract["type"] == "layers" and contract.get("containers") == ([container] if container else None)
    ]
    return [re.findall(r"[a-z_]+", layer) for layer in layers]


@pytest.mark.parametrize(
    ("picture", "container"), [(0, None), (0, "lorry_components"), (1, "lorry_registry")]
)
def test_every_arrow_goes_down(picture: int, container: str | None) -> None:
    layers = read_layers(container)
    height = {room: -number for number, layer in enumerate(layers) for room in layer}
    arrows = [(start, end) for start, end in read_arrows(picture) if start in height and end in height]
    assert {room for arrow in arrows for room in arrow} == set(height), "a room is missing in the picture"
    assert [(start, end) for start, end in arrows if height[start] <= height[end]] == []


@pytest.mark.parametrize(
    ("picture", "package", "others"),
    [
        (0, "components/lorry_components", {"lorry_registry", "lorry_components", "lorry_pipelines"}),
        (1, "registry/lorry_registry", {"registry", "settings", "manifest", "retries", "errors"}),
    ],
)
def test_each_room_is_in_the_picture(picture: int, package: str, others: set[str]) -> None:
    rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    drawn = {room for arrow in read_arrows(picture) for room in arrow}
    assert drawn == rooms | others


def test_no_module_name_is_used_for_two_things() -> None:
    places = collections.defaultdict(list)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            # A command's module has the name of its command.
            if path.stem not in IN_EACH_FOLDER and path.parent.name != "cli":
                places[path.stem].append(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
