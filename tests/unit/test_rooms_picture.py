"""The picture of the rooms in CONTRIBUTING.md shows what import-linter keeps."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def read_arrows() -> set[tuple[str, str]]:
    """Return the arrows of the picture as pairs, ``a --> b & c`` and ``a --> b --> c`` taken apart."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    picture = re.search(r"```mermaid\n(.*?)```", text, re.DOTALL)
    assert picture is not None
    arrows: set[tuple[str, str]] = set()
    for line in picture.group(1).splitlines():
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


@pytest.mark.parametrize("container", [None, "lorry_components"])
def test_every_arrow_goes_down(container: str | None) -> None:
    layers = read_layers(container)
    height = {room: -number for number, layer in enumerate(layers) for room in layer}
    arrows = [(start, end) for start, end in read_arrows() if start in height and end in height]
    assert {room for arrow in arrows for room in arrow} == set(height), "a room is missing in the picture"
    assert [(start, end) for start, end in arrows if height[start] <= height[end]] == []


def test_each_room_is_in_the_picture() -> None:
    folder = ROOT / "components" / "lorry_components"
    rooms = {path.parent.name for path in folder.glob("*/__init__.py")}
    drawn = {room for arrow in read_arrows() for room in arrow}
    assert drawn == rooms | {"lorry_registry", "lorry_components", "lorry_pipelines"}
