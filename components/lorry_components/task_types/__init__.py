"""Kinds of task: how examples are read and encoded, which head the base gets, how outputs are scored.

A kind is one module with one class. Adding one is adding a file and a line in :data:`KINDS`. Nothing here
imports torch or transformers at module level: a task file is checked without them.
"""

from collections.abc import Mapping

from lorry_components.task_types.base import Kind, Label, LabelForm, Prediction, Row, Target
from lorry_components.task_types.cloze.knowledge_probing import KnowledgeProbing
from lorry_components.task_types.diffusion.image_generation import ImageGeneration
from lorry_components.task_types.generation.text_generation import TextGeneration
from lorry_components.task_types.generation.text_to_text import TextToText
from lorry_components.task_types.input_form import InputForm
from lorry_components.task_types.question_answering.task_type import QuestionAnswering
from lorry_components.task_types.regression import Regression
from lorry_components.task_types.text_classification import TextClassification

KINDS: Mapping[str, type[Kind]] = {
    kind.name: kind
    for kind in (
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
    "KINDS",
    "ImageGeneration",
    "InputForm",
    "Kind",
    "KnowledgeProbing",
    "Label",
    "LabelForm",
    "Prediction",
    "QuestionAnswering",
    "Regression",
    "Row",
    "Target",
    "TextClassification",
    "TextGeneration",
    "TextToText",
]
