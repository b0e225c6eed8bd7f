"""Extractive question answering: the piece of a context that answers a question, or none.

::

    span_extraction   the task type
    answer_labels     answers as data writes them, and as labels
    windows           long contexts, cut into overlapping pieces
"""

from lorry_components.task_types.question_answering.span_extraction import QuestionAnswering

__all__ = ["QuestionAnswering"]
