"""Adapters on bases whose weights are in memory once, however many adapters there are."""

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.inference import Predictor, assemble_adapter
from lorry_components.methods import Method
from lorry_components.models.bases import Base
from lorry_components.task_types import TaskType
from lorry_registry.tasks.input_specs import BaseSpec

if TYPE_CHECKING:
    from torch import nn

# Of the numbers of a parameter, at most so many.
_COMPARED_FIRST = 16


class SharedBases:
    """Assembles adapters that share the unchanged weights of their bases, and their tokenizers.

    Each adapter has modules and a head of its own, so that adapters of different methods, and heads of
    different sizes, cannot disturb one another. Parameters with equal numbers are one object in all of them.
    They are never changed: nothing is trained or switched off here.

    Args:
        find_base: Finds a base and its fingerprint.
    """

    def __init__(self, find_base: Callable[[BaseSpec], Base]) -> None:
        self._find_base = find_base
        self._bases: dict[BaseSpec, Base] = {}
        # The one that rows are served with, and the one that adapters are verified with meanwhile.
        self._readers: dict[tuple[Path, type[TaskType]], tuple[Any, Any]] = {}
        self._parameters: weakref.WeakValueDictionary[Any, nn.Parameter] = weakref.WeakValueDictionary()

    def find_base(self, spec: BaseSpec) -> Base:
        """Return a base, which is identified once."""
        if spec not in self._bases:
            self._bases[spec] = self._find_base(spec)
        return self._bases[spec]

    def assemble(
        self, folder: Path, *, base: Base, task_type: TaskType, method: Method, labels: Sequence[str] | None
    ) -> Predictor:
        """Put an adapter on its base, as :func:`assemble_adapter` does."""
        predictor = assemble_adapter(
            folder,
            base=base,
            task_type=task_type,
            method=method,
            labels=labels,
            load_reader=self._load_reader,
        )
        self.share(predictor.adapted.model)
        return predictor

    def _load_reader(self, task_type: TaskType, base: Path) -> Any:
        key = (base, type(task_type))
        if key not in self._readers:
            self._readers[key] = (task_type.load_reader(base), task_type.load_reader(base))
        return self._readers[key][1]

    def release_reader(self, predictor: Predictor) -> None:
        """Give a verified adapter the tokenizer that rows are served with: none is safe in two threads."""
        predictor.reader = next(
            served for served, verifying in self._readers.values() if verifying is predictor.reader
        )

    def share(self, model: "nn.Module") -> None:
        """Put parameters that are in memory already in the place of equal ones.

        Small ones, too: one that is left keeps the whole file that it was read from mapped.
        """
        import torch
        from torch import nn

        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                # Quantized parameters have a class of their own and a state beside their numbers.
                if type(parameter) is not nn.Parameter:
                    continue
                # Some of the numbers find it; all of them are compared.
                numbers = parameter.detach().flatten()
                some = tuple(numbers[:: len(numbers) // _COMPARED_FIRST + 1].tolist())
                key = (tuple(parameter.shape), parameter.dtype, parameter.device, some)
                known = self._parameters.setdefault(key, parameter)
                if known is not parameter and torch.equal(known, parameter):
                    setattr(module, name, known)
