"""Kinds of task: how examples are read and encoded, which head the base gets, how outputs are scored.

A kind is one module with one class. Adding one is adding a file and a line in :data:`KINDS`. Nothing here
imports torch or transformers at module level: a task file is checked without them.
"""

from collections.abc import Mapping

from lorry_components.kinds.base import Kind, Label, LabelForm, Prediction, Row, Target
from lorry_components.kinds.form import InputForm
from lorry_components.kinds.image_generation import ImageGeneration
from lorry_components.kinds.knowledge_probing import KnowledgeProbing
from lorry_components.kinds.question_answering import QuestionAnswering
from lorry_components.kinds.regression import Regression
from lorry_components.kinds.text_classification import TextClassification
from lorry_components.kinds.text_generation import TextGeneration
from lorry_components.kinds.text_to_text import TextToText

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
