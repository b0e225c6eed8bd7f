"""What a task would cost, known before anything is spent: no weights are read and no GPU is needed.

From the bottom up
------------------
:mod:`~lorry_components.models.configuration`
    The base's ``config.json``: from a folder, a package, a hub (that one file), or ``bases.json`` here;
    ``images``: the same of a pipeline, and what its UNet takes.
:mod:`~lorry_components.models.dimensions`, :mod:`~lorry_components.reference.closed_forms`
    Width, depth and vocabulary under one name for every family, and closed forms of what methods train.
:mod:`~lorry_components.memory.architecture`, ``activations``, ``backward``, ``imitation``
    The model on torch's meta device, where tensors have shapes and no numbers; what a forward pass keeps, and
    a backward pass holds in passing.
:mod:`~lorry_components.memory.estimates`, ``devices``, ``advice``
    Arithmetic alone: memory by part as a range, the smallest GPU that holds it, and what would take less, as
    far as validation accepts it (``acceptance``).
:mod:`~lorry_components.memory.plan`, ``describing``
    All of it for one task, and as plain values; ``classes`` looks how many there are, where the data is small
    and here.
:mod:`~lorry_components.memory.fit_check`
    Whether a plan fits the resources that the task asks for; a bound that needs no torch comes first
    (``bounding``).
:mod:`~lorry_components.reference.tables`, ``published``, ``dreambooth``
    The published tables beside ours.

Importing any of these imports neither torch nor transformers.
"""

from lorry_components.memory.fit_check import check_fits, is_surely_small
from lorry_components.memory.plan import TaskPlan, plan_task
from lorry_components.memory.plan_document import describe_plan

__all__ = ["TaskPlan", "check_fits", "describe_plan", "is_surely_small", "plan_task"]
