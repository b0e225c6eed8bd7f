"""The view in which MLflow's pages show a task's trainings: results and recipes side by side.

By itself, MLflow lists neither a metric nor a parameter. A view is kept in a tag of the experiment, in the
form that MLflow 3.17 gives to those that people save under *Views*; older ones take no notice of it.
"""

import json

VIEW_KEY = "lorry"
"""What stands in an address that opens the view."""

VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
_NAME = "Results"
# A run's name holds its version and its method.
_TAGS = ("lorry.decision", "lorry.status")
_STUDY_TAGS = ("lorry.recommendation", "lorry.method")
_PARAMETERS = (
    # What sets the size of an adapter; MLflow shows no column for what no run has.
    *(f"method.options.{name}" for name in ("r", "tokens", "layers", "size", "reduction")),
    "train.learning_rate",
    "train.epochs",
    "train.steps",
    "train.batch_size",
)
# A person who saves a view has a clock.
_TIME = 0


def build_view(primary: str, *, of_studies: bool = False) -> str:
    """Return the value of the tag that keeps the view.

    Args:
        primary: The metric that the gate decides by.
        of_studies: Whether it is for a task's studies, of which none is a version.
    """
    tags = _STUDY_TAGS if of_studies else _TAGS
    scored = "study" if of_studies else "test"
    columns = [
        *(f"metrics.`{part}/{primary}`" for part in (scored, "validation")),
        *(f"params.`{name}`" for name in _PARAMETERS),
        *(f"tags.`{name}`" for name in tags),
    ]
    state = json.dumps({"selectedColumns": columns})
    return json.dumps({"name": _NAME, "createdAt": _TIME, "updatedAt": _TIME, "state": state})


def is_own_view(value: str) -> bool:
    """Return whether a view is one of ours, and none that a person saved in its place."""
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("updatedAt") == _TIME
