"""Task types: how examples are read and encoded, which head the base gets, how outputs are scored.

A task type is one module with one class. Adding one is adding a file and a line in :data:`TASK_TYPES`.
Nothing here imports torch or transformers at module level: a task file is checked without them.
"""

from collections.abc import Mapping

from lorry_components.task_types.base import Label, LabelForm, Prediction, Row, Target, TaskType
from lorry_components.task_types.cloze.knowledge_probing import KnowledgeProbing
from lorry_components.task_types.diffusion.image_generation import ImageGeneration
from lorry_components.task_types.generation.text_generation import TextGeneration
from lorry_components.task_types.generation.text_to_text import TextToText
from lorry_components.task_types.input_form import InputForm
from lorry_components.task_types.question_answering.span_extraction import QuestionAnswering
from lorry_components.task_types.regression import Regression
from lorry_components.task_types.text_classification import TextClassification

TASK_TYPES: Mapping[str, type[TaskType]] = {
    task_type.name: task_type
    for task_type in (
        TextClassification,
        Regression,
        QuestionAnswering,
        TextGeneration,
        TextToText,
        KnowledgeProbing,
        ImageGeneration,
    )
}

__all__ = [
    "TASK_TYPES",
    "ImageGeneration",
    "InputForm",
    "KnowledgeProbing",
    "Label",
    "LabelForm",
    "Prediction",
    "QuestionAnswering",
    "Regression",
    "Row",
    "Target",
    "TaskType",
    "TextClassification",
    "TextGeneration",
    "TextToText",
]
