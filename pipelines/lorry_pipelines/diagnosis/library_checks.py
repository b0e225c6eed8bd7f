"""Python and the libraries, against what this version of Lorry asks for."""

import importlib.metadata
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from packaging.requirements import Requirement

from lorry_pipelines.diagnosis.findings import Finding

_DISTRIBUTION = "lorry"
_LEAST_PYTHON = (3, 11)
# Extras that make Lorry itself; the rest is for those who change it.
_NOT_SHOWN = frozenset({"dev", "docs", "fuzz"})
_SHOWN_NAMES = 4


@dataclass(frozen=True, slots=True)
class _Library:
    name: str
    wanted: str
    installed: str | None
    is_right: bool


def check_python() -> Finding:
    """Say which Python runs."""
    version, where = platform.python_version(), sys.prefix
    if sys.version_info < _LEAST_PYTHON:
        return Finding("Python", "failure", f"{version} at {where}", "use Python 3.11 or newer")
    return Finding("Python", "ok", f"{version} at {where}", details={"version": version})


def check_libraries(requirements: Sequence[str] | None = None) -> list[Finding]:
    """Compare what is installed with the ranges that this version of Lorry was made for.

    Args:
        requirements: What is asked for, as ``importlib.metadata`` has it; None: by the installed Lorry.
    """
    found = importlib.metadata.requires(_DISTRIBUTION) if requirements is None else requirements
    parsed = [Requirement(text) for text in found or ()]
    extras = sorted({extra for each in parsed for extra in _list_extras(each)} - _NOT_SHOWN)
    version = importlib.metadata.version(_DISTRIBUTION)
    needed = [_look_at(each) for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]
    findings = [_describe_needed(f"lorry {version}", needed)]
    for extra in extras:
        own = [each for each in parsed if extra in _list_extras(each) and _applies(each, extra)]
        findings.append(_describe_extra(extra, [_look_at(each) for each in own]))
    return findings


def _list_extras(requirement: Requirement) -> set[str]:
    marker = str(requirement.marker or "").replace("'", '"')
    return {part.partition('"')[0] for part in marker.split('extra == "')[1:]}


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _look_at(requirement: Requirement) -> _Library:
    try:
        installed = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return _Library(requirement.name, str(requirement.specifier), None, is_right=False)
    is_right = requirement.specifier.contains(installed, prereleases=True)
    return _Library(requirement.name, str(requirement.specifier), installed, is_right=is_right)


def _describe_needed(subject: str, libraries: Sequence[_Library]) -> Finding:
    missing = [library for library in libraries if library.installed is None]
    if missing:
        todo = "pip install --force-reinstall lorry"
        return Finding(
            subject, "failure", f"{_join(missing)}: not installed", todo, _list_versions(libraries)
        )
    return _describe_present(subject, libraries, "pip install --upgrade lorry")


def _describe_extra(extra: str, libraries: Sequence[_Library]) -> Finding:
    subject, todo = f"lorry[{extra}]", f"pip install 'lorry[{extra}]'"
    missing = [library for library in libraries if library.installed is None]
    if not missing:
        return _describe_present(subject, libraries, todo.replace("install", "install --upgrade"))
    details = _list_versions(libraries)
    if len(missing) * 2 >= len(libraries):
        return Finding(subject, "ok", f"not installed: there is no {_join(missing)}", todo, details)
    return Finding(subject, "warning", f"incomplete: there is no {_join(missing)}", todo, details)


def _describe_present(subject: str, libraries: Sequence[_Library], todo: str) -> Finding:
    wrong = [library for library in libraries if not library.is_right]
    details = _list_versions(libraries)
    if wrong:
        text = "; ".join(f"{each.name} is {each.installed}, and {each.wanted} was tested" for each in wrong)
        return Finding(subject, "warning", text, todo, details)
    if len(libraries) == 1:
        return Finding(subject, "ok", f"{libraries[0].name} {libraries[0].installed}", details=details)
    return Finding(subject, "ok", f"all {len(libraries)} libraries, in the tested versions", details=details)


def _list_versions(libraries: Iterable[_Library]) -> dict[str, str | None]:
    return {library.name: library.installed for library in libraries}


def _join(libraries: Sequence[_Library]) -> str:
    names = [library.name for library in libraries[:_SHOWN_NAMES]]
    more = len(libraries) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
