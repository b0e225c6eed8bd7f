"""The memory and time of a training, computed beforehand: no weights are read and no GPU is needed.

From the bottom up
------------------
:mod:`~lorry_components.memory.architecture`, :mod:`~lorry_components.memory.device_emulation`
    The model on torch's meta device, where tensors have shapes and no numbers, and where attention behaves as
    in a GPU's kernels; what a method trains and saves of it.
:mod:`~lorry_components.memory.activations`, :mod:`~lorry_components.memory.backward`
    What a forward pass keeps, and what a backward pass holds temporarily.
:mod:`~lorry_components.memory.estimates`, :mod:`~lorry_components.memory.gpus`
    Arithmetic alone: memory by part as a range, and the GPUs that hold it.
:mod:`~lorry_components.memory.advice`, :mod:`~lorry_components.memory.acceptance`
    Changes that would take less, as far as validation accepts them.
:mod:`~lorry_components.memory.diffusion_pipeline`, :mod:`~lorry_components.memory.class_counts`
    What a pipeline that draws images takes; how many classes the data has, if it is small and local.
:mod:`~lorry_components.memory.expectations`
    What to expect of a method on a base of a certain size, as far as it was measured.
:mod:`~lorry_components.memory.plan`, :mod:`~lorry_components.memory.plan_document`
    All of this for one task, and as plain values.
:mod:`~lorry_components.memory.fit_check`, :mod:`~lorry_components.memory.upper_bounds`
    Whether a plan fits the resources that the task asks for; an upper bound that needs no torch comes first.

Importing any of these imports neither torch nor transformers.
"""

from lorry_components.memory.fit_check import check_fits, is_surely_small
from lorry_components.memory.plan import TaskPlan, plan_task
from lorry_components.memory.plan_document import describe_plan

__all__ = ["TaskPlan", "check_fits", "describe_plan", "is_surely_small", "plan_task"]
