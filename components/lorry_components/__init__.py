"""The parts of a pipeline: task types, methods of adaptation, the steps, inference, planning and comparisons.

From the top down
-----------------
:mod:`~lorry_components.studies`
    Comparisons of methods and grids of their options on one task.
:mod:`~lorry_components.steps`
    prepare_data, finetune, evaluate, gate, register, report. In each, ``step.py`` is a plain function over
    paths, and ``component.py`` the Kubeflow glue.
:mod:`~lorry_components.memory`
    What a task would take, computed before anything is spent.
:mod:`~lorry_components.tasks`
    A task file, checked as a whole, and whether its adapter is out of date.
:mod:`~lorry_components.training`, :mod:`~lorry_components.inference`
    The trainer; the one way to load an adapter on its base and to predict, which ``evaluate``,
    ``lorry predict`` and MLflow share.
:mod:`~lorry_components.methods`, :mod:`~lorry_components.task_types`
    Two tables from a name to a class. A task type knows examples, heads and scores; a method knows how a
    frozen base becomes trainable and what of it is saved.
:mod:`~lorry_components.metrics`
    Scores of predictions, and their intervals by the bootstrap.
:mod:`~lorry_components.models`, :mod:`~lorry_components.data`
    Every question about a base; sources, records, checks and splits.

Nothing is imported here, and no package imports torch, transformers or kfp when it is imported itself: a task
file is checked without them.
"""

__all__: list[str] = []
