"""The registry stays light: what it imports decides where it can be installed and how fast a command is."""

from collections.abc import Callable

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
for module in sys.argv[1].split(","):
    importlib.import_module(module)
print(*sorted(set(sys.argv[2].split(",")) & set(sys.modules)))
"""


def test_nothing_heavy_is_imported(run_scripts: Callable[..., list[str]]) -> None:
    commands = ("tasks", "show", "history", "pull", "verify", "promote", "rollback")
    modules = ["lorry_registry.mlflow.index", *(f"lorry_registry.cli.{command}" for command in commands)]
    (imported,) = run_scripts(_IMPORT, [(",".join(modules), ",".join(_HEAVY))])
    assert imported.split() == []
