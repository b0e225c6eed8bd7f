"""What each package exports: a list that only changes on purpose, and nothing beside it."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOTS = ("lorry_components", "lorry_pipelines", "lorry_registry")
HEAVY = ("datasets", "diffusers", "kfp", "mlflow", "peft", "pyarrow", "sklearn", "torch", "transformers")
GOLDEN = Path(__file__).with_name("public_surface.json")


def list_packages() -> list[str]:
    """Return the names of all packages, found by their files: nothing is imported but the roots."""
    names = list(ROOTS)
    for root in ROOTS:
        for folder in map(Path, importlib.import_module(root).__path__):
            inner = [path.parent.relative_to(folder).parts for path in folder.rglob("*/__init__.py")]
            names.extend(".".join([root, *parts]) for parts in inner)
    return sorted(names)


PACKAGES = list_packages()


def list_exports(package: ModuleType) -> list[str]:
    return list(getattr(package, "__all__", ()))


def sort_names(names: list[str]) -> list[str]:
    """Sort as ruff does: constants, then classes, then everything else."""
    return sorted(names, key=lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name))


def test_the_surface_is_the_golden_one() -> None:
    surface = {name: list_exports(importlib.import_module(name)) for name in PACKAGES}
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(f"{json.dumps(surface, indent=2)}\n", "utf-8")
    assert surface == json.loads(GOLDEN.read_text("utf-8"))


@pytest.mark.parametrize("name", PACKAGES)
def test_exports_are_sorted_and_there(name: str) -> None:
    package = importlib.import_module(name)
    exports = list_exports(package)
    assert exports == sort_names(exports)
    assert len(exports) == len(set(exports))
    submodules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    missing = [export for export in exports if export not in submodules and not hasattr(package, export)]
    assert missing == []


@pytest.mark.parametrize("name", PACKAGES)
def test_nothing_else_is_public(name: str) -> None:
    """Everything that a package makes itself is exported or private; what it only uses does not count."""
    package = importlib.import_module(name)
    exports = list_exports(package)
    public = {key: value for key, value in vars(package).items() if not key.startswith("_")}
    leaking = [
        key
        for key, value in public.items()
        if key not in exports
        and not isinstance(value, ModuleType)
        and f"{getattr(value, '__module__', name)}.".startswith(f"{name}.")
    ]
    assert leaking == []


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_has_a_tour(name: str) -> None:
    documentation = importlib.import_module(name).__doc__ or ""
    assert documentation.partition("\n")[0].endswith((".", "?"))


def test_importing_packages_is_light() -> None:
    """A task file is checked, and a pipeline compiled, without torch: no package imports it by itself."""
    code = (
        f"import importlib, sys\nfor name in {PACKAGES}: importlib.import_module(name)\n"
        f"print(*sorted(set({HEAVY}) & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == []


def test_each_command_is_in_the_module_of_its_name() -> None:
    from lorry_pipelines.cli import COMMANDS

    modules = {command.name: command.target.partition(":")[0].rpartition(".")[2] for command in COMMANDS}
    assert modules == {name: name for name in modules}
