"""Task types whose answer is the token in a gap, by the output layer that the base was trained with.

::

    base                what they have in common: templates, training, the logits in the gap
    reader              a sentence with a gap as a base reads it
    knowledge_probing   what a base knows of a subject, as LAMA asks it
"""

from lorry_components.task_types.cloze.base import ClozeTaskType
from lorry_components.task_types.cloze.knowledge_probing import KnowledgeProbing

__all__ = ["ClozeTaskType", "KnowledgeProbing"]
