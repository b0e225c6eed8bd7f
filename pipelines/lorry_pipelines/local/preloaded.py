"""The imports of a local run's steps: loaded once, by the process that all of them are forked from.

Most of a small task's time went into importing the same libraries in each of its steps. The process imports
this module and does nothing else, so that nothing of one step can reach another.
"""

import contextlib
import gc
import importlib
import warnings

from lorry_components.models.quantization import import_peft_alone
from lorry_components.process_setup import ease_garbage_collection, quiet_libraries

MODULES = (
    "torch",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.trainer",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "lorry_components.training.trainer",
    *(
        f"lorry_components.steps.{step}.entry"
        for step in ("prepare_data", "finetune", "evaluate", "gate", "register", "report")
    ),
)

warnings.simplefilter("ignore")
quiet_libraries()
ease_garbage_collection()
with contextlib.suppress(Exception):
    import_peft_alone()
for _name in MODULES:
    # What is not installed, or fails, does so again in the step that needs it, which reports it.
    with contextlib.suppress(Exception):
        importlib.import_module(_name)
# The collector of a step would touch, and so copy, what all steps share.
gc.freeze()
