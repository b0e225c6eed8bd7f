"""Task types whose answer is a text that the base writes, by the output layer that it was trained with.

::

    base              what they have in common: training on answers, the search for a text, its scores
    prompts           rows as prompts, and answers, in tokens
    answer_lengths    a warning of answers that are cut
    text_generation   a causal language model goes on from the prompt
    text_to_text      a decoder writes beside an encoder
"""

from lorry_components.task_types.generation.base import GenerationTaskType
from lorry_components.task_types.generation.text_generation import TextGeneration
from lorry_components.task_types.generation.text_to_text import TextToText

__all__ = ["GenerationTaskType", "TextGeneration", "TextToText"]
