"""Methods: how a frozen base becomes trainable, what of it is saved, how it is loaded again.

A method is one module with one class. Adding one is adding a file and a line in :data:`METHODS`. Nothing
here imports torch or peft at module level: a task file is checked without them.
"""

from collections.abc import Mapping

from lorry_components.methods.base import AdaptedModel, Method
from lorry_components.methods.full import FullFineTuning
from lorry_components.methods.lora import Lora
from lorry_components.methods.p_tuning import PTuning

METHODS: Mapping[str, type[Method]] = {method.name: method for method in (Lora, FullFineTuning, PTuning)}

__all__ = ["METHODS", "AdaptedModel", "FullFineTuning", "Lora", "Method", "PTuning"]
