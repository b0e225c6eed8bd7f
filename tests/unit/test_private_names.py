"""Private names of other libraries: each one that we use is known, has a reason, and is still there."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
PACKAGES = ("lorry_registry", "lorry_components", "lorry_pipelines")
FOLDERS = ("registry", "components", "pipelines")
# Name -> where it is defined, and why nothing public would do. Private methods that a class of ours overrides
# are not listed: those of Trainer are in tests/unit/components/training/test_trainer_contract.py.
KNOWN = {
    "_run_exitfuncs": (
        "atexit:_run_exitfuncs",
        "what a process does at its end can be done before the end in no other way",
    ),
    "model_signing._hashing.hashing": (
        "model_signing._hashing.hashing:Digest",
        "the library takes a digest that is known already from nowhere else",
    ),
    "torch.utils._python_dispatch": (
        "torch.utils._python_dispatch:TorchDispatchMode",
        "what an operation makes is seen by a dispatch mode alone, and this is where torch documents it",
    ),
    "torch.utils._pytree": (
        "torch.utils._pytree:tree_leaves",
        "torch has no public function that lists the tensors of nested outputs",
    ),
    "_cdata": (
        "torch:UntypedStorage._cdata",
        "storages on the meta device have no address that tells one from another",
    ),
    "_shutdown": (
        "threading:_shutdown",
        "threads are told to end, and waited for, before a process ends, in no other way",
    ),
    "_keep_in_fp32_modules": (
        "transformers:PreTrainedModel._keep_in_fp32_modules",
        "which modules transformers keeps in 32 bits is written nowhere else",
    ),
    "_from_config": (
        "transformers:PreTrainedModel._from_config",
        "a model class builds from a configuration with another implementation of attention by this alone",
    ),
    "_model_mapping": (
        "transformers:AutoModelForCausalLM._model_mapping",
        "an automatic class does not say publicly which configurations it knows",
    ),
}
# Documented, in spite of their underscore: namedtuple avoids clashes with the names of fields.
DOCUMENTED = {"_replace", "_asdict", "_fields", "_exit"}


def list_private_names(source: str) -> Iterator[str]:
    """Yield private names that are imported from other libraries, or read from objects other than self."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not str(node.module).startswith(PACKAGES):
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            if any(map(is_private, names)):
                yield str(node.module) if any(map(is_private, names[:-1])) else names[-1]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if any(map(is_private, alias.name.split("."))))
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node.value):
            yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            name = node.args[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and is_private(name.value):
                yield name.value


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def is_own(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def test_each_private_name_is_known() -> None:
    used = {
        name
        for folder in FOLDERS
        for path in (PROJECT / folder).rglob("*.py")
        for name in list_private_names(path.read_text("utf-8"))
    }
    assert used == KNOWN.keys(), "find a public way, or list the name in KNOWN with its reason"


@pytest.mark.parametrize(("name", "reason"), KNOWN.values())
def test_each_private_name_is_still_there(name: str, reason: str) -> None:
    module, _, attributes = name.partition(":")
    place = importlib.import_module(module)
    for attribute in attributes.split("."):
        assert hasattr(place, attribute), (
            f"the installed {module} has no {attributes} any more, which we use because {reason}: find what "
            "replaced it, and let pyproject.toml admit this version of the library only when that works"
        )
        place = getattr(place, attribute)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from torch.utils._pytree import tree_map", ["torch.utils._pytree"]),
        ("from torch import _C", ["_C"]),
        ("import torch._C", ["torch._C"]),
        ("model._hidden", ["_hidden"]),
        ("storage()._cdata", ["_cdata"]),
        ("getattr(model, '_hidden', None)", ["_hidden"]),
        ("from lorry_components.x import _own", []),
        ("self._own, cls._own, super()._own, model.__class__, pair._replace(a=1)", []),
    ],
)
def test_private_names_are_seen(source: str, expected: list[str]) -> None:
    assert list(list_private_names(source)) == expected
