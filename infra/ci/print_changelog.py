"""Prints what the changelog says of a version, for the page of a release.

    print_changelog.py [VERSION]      v1.2.3 or 1.2.3; default: the version in pyproject.toml

Fails when the version is not the project's, so that a tag with a slip of the pen releases nothing, and when
the changelog has nothing on it.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def find_section(changelog: str, version: str) -> str:
    """Return what stands below the heading of a version; empty: nothing does."""
    found = re.search(
        rf"^## {re.escape(version)}\b.*?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    return found[1].strip() if found else ""


def main(arguments: list[str]) -> int:
    """Print the section of a version; return the exit code."""
    own = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    version = arguments[0].removeprefix("v") if arguments else own
    if version != own:
        print(f"{version} is not the version in pyproject.toml, which is {own}", file=sys.stderr)
        return 1
    section = find_section((ROOT / "CHANGELOG.md").read_text("utf-8"), version)
    if not section:
        print(f"CHANGELOG.md says nothing of {version}", file=sys.stderr)
        return 1
    print(section)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
