"""Write what is in an image as a CycloneDX 1.6 document: packages of Python's and of Debian's, with licences.

Runs inside the image with nothing but the standard library, so that what it lists is what is there. Printed
in one order and without a time of its own: the same image has the same document.

Usage: write_sbom.py --name NAME --version VERSION --created TIME > sbom.cdx.json
"""

import argparse
import hashlib
import json
import platform
import re
import sys
import uuid
from collections.abc import Iterable, Iterator
from email.parser import HeaderParser
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

_DPKG = Path("/var/lib/dpkg")
_RELEASE = Path("/etc/os-release")
_PRODUCT = "lorry"
# The name of a requirement, before its extras, versions and markers.
_REQUIRED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Component = dict[str, Any]


def main() -> None:
    """Print the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for option in ("--name", "--version", "--created"):
        parser.add_argument(option, required=True)
    given = parser.parse_args()
    packages = sorted(distributions(), key=lambda found: normalize(found.name))
    document = build_document(
        describe_image(given.name, given.version),
        [*map(describe_distribution, packages), describe_python(), *list_debian_packages(_DPKG, _RELEASE)],
        created=given.created,
        dependencies=list_dependencies(packages),
    )
    json.dump(document, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


def build_document(
    image: Component, components: list[Component], *, created: str, dependencies: list[Component]
) -> dict[str, Any]:
    """Return the whole document; its serial number follows from what it says."""
    described = [{"ref": image["bom-ref"], "dependsOn": [part["bom-ref"] for part in components]}]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": created,
            "component": image,
            "lifecycles": [{"phase": "build"}],
        },
        "components": components,
        "dependencies": [*described, *dependencies],
    }
    content = json.dumps(document, sort_keys=True).encode("utf-8")
    serial = uuid.UUID(bytes=hashlib.sha256(content).digest()[:16], version=4)
    return document | {"serialNumber": f"urn:uuid:{serial}"}


def describe_image(name: str, version: str) -> Component:
    """Return the image as a component."""
    return {"type": "container", "bom-ref": f"{name}@{version}", "name": name, "version": version}


def describe_distribution(package: Distribution) -> Component:
    """Return an installed Python package as a component."""
    name = normalize(package.name)
    purl = f"pkg:pypi/{name}@{quote(package.version)}"
    return {
        "type": "application" if name == _PRODUCT else "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        **describe_licences(package),
    }


def describe_licences(package: Distribution) -> dict[str, Any]:
    """Return the licence of a package: its SPDX expression if it gives one, else the names that it gives."""
    expression = package.metadata.get("License-Expression")
    if expression:
        return {"licenses": [{"expression": expression}]}
    classifiers = package.metadata.get_all("Classifier") or []
    names = [row.rpartition(" :: ")[2] for row in classifiers if row.startswith("License ::")]
    # A field with a whole licence in it is no name.
    stated = (package.metadata.get("License") or "").strip().splitlines()
    names = names or [line for line in stated[:1] if len(stated) == 1]
    return {"licenses": [{"license": {"name": name}} for name in dict.fromkeys(names)]} if names else {}


def describe_python() -> Component:
    """Return the interpreter as a component."""
    version = platform.python_version()
    purl = f"pkg:generic/python@{version}"
    return {"type": "platform", "bom-ref": purl, "name": "python", "version": version, "purl": purl}


def list_debian_packages(database: Path, release: Path) -> Iterator[Component]:
    """Yield the packages of Debian, or of what came of it, that are installed; none on other systems."""
    files = sorted([database / "status", *(database / "status.d").glob("*")])
    system = dict(read_release(release))
    qualifier = quote(f"{system.get('ID', 'debian')}-{system.get('VERSION_ID', '')}".rstrip("-"))
    parser = HeaderParser()
    for path in filter(Path.is_file, files):
        for paragraph in path.read_text("utf-8").split("\n\n"):
            fields = parser.parsestr(paragraph.strip() + "\n")
            if fields["Package"] is None or not (fields["Status"] or "installed").endswith("installed"):
                continue
            name, version = fields["Package"], fields["Version"]
            place = f"pkg:deb/{quote(system.get('ID', 'debian'))}/{quote(name)}@{quote(version)}"
            purl = f"{place}?arch={fields['Architecture']}&distro={qualifier}"
            yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def read_release(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the names and values in a file such as /etc/os-release; none if there is no such file."""
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        name, equals, value = line.partition("=")
        if equals:
            yield name, value.strip("\"'")


def list_dependencies(packages: Iterable[Distribution]) -> list[Component]:
    """Return which of these packages asks for which others of them, extras and markers aside."""
    references = {normalize(package.name): describe_distribution(package)["bom-ref"] for package in packages}
    return [
        {"ref": references[normalize(package.name)], "dependsOn": sorted(set(wanted))}
        for package in packages
        if (wanted := [references[name] for name in list_required(package) if name in references])
    ]


def list_required(package: Distribution) -> Iterator[str]:
    """Yield the names of what a package asks for, extras aside."""
    for requirement in package.requires or ():
        found = _REQUIRED.match(requirement)
        if found is not None and "extra ==" not in requirement:
            yield normalize(found.group())


def normalize(name: str) -> str:
    """Return a name as package indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
