"""The registry stays light: what it imports decides where it can be installed and how fast a command is."""

from collections.abc import Callable

import pytest

_HEAVY = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "kfp",
    "mlflow",
    "boto3",
    "botocore",
    "rich",
    "pandas",
    "numpy",
)

_IMPORT = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*sorted(set(sys.argv[2].split(",")) & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "module",
    [
        "lorry_registry",
        "lorry_registry.cli",
        "lorry_registry.cli.tasks",
        "lorry_registry.cli.show",
        "lorry_registry.cli.history",
        "lorry_registry.cli.pull",
        "lorry_registry.cli.verify",
        "lorry_registry.cli.promote",
        "lorry_registry.cli.rollback",
        "lorry_registry.mlflow.index",
    ],
)
def test_nothing_heavy_is_imported(module: str, run_scripts: Callable[..., list[str]]) -> None:
    (imported,) = run_scripts(_IMPORT, [(module, ",".join(_HEAVY))])
    assert imported.split() == []
