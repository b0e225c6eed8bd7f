"""What a pipeline step does: task types, methods of adaptation, the steps, and inference.

The architecture, from the bottom up
------------------------------------
:mod:`~lorry_components.task_types` and :mod:`~lorry_components.methods`
    Two tables from a name to a class. A kind knows examples, heads and scores; a method knows how a frozen
    base becomes trainable and what of it is saved. Neither imports torch at module level.
:mod:`~lorry_components.models.bases`
    Finds the frozen base and computes its fingerprint.
:mod:`~lorry_components.inference`
    One way to load an adapter on its base and to predict: ``evaluate``, ``lorry predict`` and MLflow use it.
``prepare_data``, ``finetune``, ``evaluate``, ``gate``, ``register``, ``report``
    The steps. In each, ``step.py`` is a plain function over paths, and ``component.py`` the Kubeflow glue.
:mod:`~lorry_components.steps.runtime.outcomes`
    What a step leaves behind for the run's report, so that one failed task does not take the others down.
"""
