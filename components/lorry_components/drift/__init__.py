"""Drift: a comparison of new inputs with the rows that a task was trained on.

:mod:`~lorry_components.drift.permutation` has the tests, over rows that are exchanged at random,
:mod:`~lorry_components.drift.input_rows` reads new inputs by a task's columns, and
:mod:`~lorry_components.drift.comparison` compares both in what their texts are like.
"""

from lorry_components.drift.comparison import DriftReport, ShiftTest, compare_inputs
from lorry_components.drift.input_rows import InputRows, read_inputs

__all__ = ["DriftReport", "InputRows", "ShiftTest", "compare_inputs", "read_inputs"]
