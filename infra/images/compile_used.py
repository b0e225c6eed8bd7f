"""Compile what steps import, so that no step does so again: none can keep what it compiles.

That is a third of what is installed; the other files would make the image larger and no step faster. By the
hash of the source, which is not looked at again: the times of files would make each build another.

Each module has to be there: a build fails here if something was left out that a step needs.

Usage: compile_used.py
"""

import importlib
import importlib.util
import os
import py_compile
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

# What steps import where they need it, each with what it imports itself.
_SLIM = (
    *(
        "boto3",
        "botocore.session",
        "cryptography.hazmat.primitives.serialization",
        "datasets",
        "huggingface_hub",
    ),
    *("kfp.dsl.executor_main", "mlflow", "mlflow.models", "mlflow.pyfunc", "mlflow.tracking.client"),
    *("mlflow.store.tracking.rest_store", "mlflow.store.tracking.sqlalchemy_store"),
    *("mlflow.store.model_registry.rest_store", "mlflow.store.model_registry.sqlalchemy_store"),
    *("model_signing", "numpy", "pandas", "PIL.Image", "pyarrow.parquet", "transformers.models.auto"),
    "transformers.tokenization_utils_tokenizers",
)
_TRAIN = (
    *(
        "accelerate",
        "diffusers",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        "nltk.stem.porter",
        "peft",
    ),
    *(
        "kubernetes.client",
        "kubernetes.config",
        "sacrebleu",
        "safetensors.torch",
        "scipy.stats",
        "sklearn.metrics",
        "torch",
        "torch.utils.data",
    ),
    *("transformers.integrations", "transformers.modeling_utils", "transformers.trainer"),
)

_SERVE = ("prometheus_client", "starlette.applications", "uvicorn.protocols.http.h11_impl")


def main() -> None:
    """Import what is used, and compile it."""
    if importlib.util.find_spec("kfp") is None:
        # Only the demo's base is installed, which is no code.
        return
    # Without it, kfp imports its compiler as well, which is not here.
    os.environ["_KFP_RUNTIME"] = "true"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [
            *_SLIM,
            *(_TRAIN if importlib.util.find_spec("torch") is not None else ()),
            *(_SERVE if importlib.util.find_spec("prometheus_client") is not None else ()),
        ]
        for name in names:
            importlib.import_module(name)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    count = sum(1 for path in list_sources() if py_compile.compile(str(path), invalidation_mode=mode))
    print(f"{count} modules compiled")


def list_sources() -> Iterator[Path]:
    """Yield the files of the modules that were imported into this process, and not compiled before.

    What the layer below has compiled would be in two layers.
    """
    for module in list(sys.modules.values()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        if origin is None or not origin.endswith(".py") or not Path(origin).is_relative_to(sys.prefix):
            continue
        if not Path(importlib.util.cache_from_source(origin)).exists():
            yield Path(origin)


if __name__ == "__main__":
    main()
