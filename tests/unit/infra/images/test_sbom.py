"""The list of what is in an image: complete, valid by CycloneDX's schema, the same for the same image."""

import json
import sys
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

STATUS = """Package: libssl3t64
Status: install ok installed
Architecture: amd64
Version: 3.5.1-1+deb13u1
Description: a library
 with a second line

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 1.0

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2025b-4
"""


@pytest.fixture(scope="module")
def script(load_script: Callable[[str], Any]) -> Any:
    return load_script("write_sbom")


@pytest.fixture
def system(tmp_path: Path) -> tuple[Path, Path]:
    database, release = tmp_path / "dpkg", tmp_path / "os-release"
    database.mkdir()
    (database / "status").write_text(STATUS, "utf-8")
    release.write_text('ID=debian\nVERSION_ID="13"\n', "utf-8")
    return database, release


@pytest.fixture
def write(
    script: Any,
    system: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[], str]:
    monkeypatch.setattr(script, "_DPKG", system[0])
    monkeypatch.setattr(script, "_RELEASE", system[1])
    options = ["--name", "lorry-slim", "--version", "1.2.3", "--created", "2026-01-02T03:04:05Z"]
    monkeypatch.setattr(sys, "argv", ["write_sbom.py", *options])

    def run() -> str:
        script.main()
        return capsys.readouterr().out

    return run


def test_everything_that_is_installed_is_listed(write: Callable[[], str], script: Any) -> None:
    document = json.loads(write())
    listed = {part["purl"] for part in document["components"]}
    for package in distributions():
        assert any(purl.startswith(f"pkg:pypi/{script.normalize(package.name)}@") for purl in listed)
    assert "pkg:deb/debian/libssl3t64@3.5.1-1%2Bdeb13u1?arch=amd64&distro=debian-13" in listed
    assert "pkg:deb/debian/tzdata@2025b-4?arch=all&distro=debian-13" in listed
    assert not [purl for purl in listed if "removed" in purl]
    assert [part["type"] for part in document["components"] if part["name"] == "python"] == ["platform"]
    described = document["metadata"]
    assert (described["timestamp"], described["component"]["version"]) == ("2026-01-02T03:04:05Z", "1.2.3")
    licences = {part["name"]: part.get("licenses") for part in document["components"]}
    assert licences["numpy"], "numpy says its licence"


def test_the_same_image_has_the_same_document(write: Callable[[], str]) -> None:
    assert write() == write()


def test_references_are_unique_and_lead_somewhere(write: Callable[[], str]) -> None:
    document = json.loads(write())
    references = [part["bom-ref"] for part in document["components"]]
    assert len(references) == len(set(references))
    known = {*references, document["metadata"]["component"]["bom-ref"]}
    for entry in document["dependencies"]:
        assert {entry["ref"], *entry["dependsOn"]} <= known


def test_it_is_valid_by_the_schema(write: Callable[[], str]) -> None:
    pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed: make install")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    text = write()
    assert validator.validate_str(text) is None
    # A document that says less is refused, so that the check is one.
    broken = json.loads(text)
    del broken["components"][0]["name"]
    assert validator.validate_str(json.dumps(broken)) is not None


def test_a_system_without_debian_packages_has_python_ones(script: Any, tmp_path: Path) -> None:
    assert list(script.list_debian_packages(tmp_path / "no", tmp_path / "none")) == []
