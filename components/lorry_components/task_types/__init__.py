"""Task types: how examples are read and encoded, which head the base gets, how outputs are scored.

::

    base                 the interface
    training_form        what a trainer has to know of a task type
    input_form           what of a task file decides how a row is read and answered
    template_filling     from a template and a row to tokens

    text_task            the family over transformers' models of text
      text_head          a new head on the base
        sequence_head        one for a whole text: text_classification, regression
        question_answering/  one for each token: the piece of a context that answers a question
      generation/        a text that the base writes: text_generation, text_to_text
      cloze/             the token that the base puts in a gap: knowledge_probing
    diffusion/           the family over a UNet and the parts around it: image_generation

A task type is one class. To add one, write its class in a file, below the family that it belongs to, and add
a line to :data:`TASK_TYPES`. Nothing here imports torch or transformers at module level: a task file is
checked without them.
"""

from collections.abc import Mapping

from lorry_components.data.rows import Label, LabelForm, Row
from lorry_components.metrics.base import Prediction, Target
from lorry_components.task_types.base import TaskType
from lorry_components.task_types.cloze import ClozeTaskType, KnowledgeProbing
from lorry_components.task_types.diffusion import DiffusionTaskType, ImageGeneration
from lorry_components.task_types.generation import GenerationTaskType, TextGeneration, TextToText
from lorry_components.task_types.input_form import InputForm
from lorry_components.task_types.question_answering import QuestionAnswering
from lorry_components.task_types.regression import Regression
from lorry_components.task_types.text_classification import TextClassification
from lorry_components.task_types.text_head import TextHeadTaskType
from lorry_components.task_types.text_task import TextTaskType
from lorry_components.task_types.training_form import TrainingForm

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
    "ClozeTaskType",
    "DiffusionTaskType",
    "GenerationTaskType",
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
    "TextHeadTaskType",
    "TextTaskType",
    "TextToText",
    "TrainingForm",
]
