"""The common part of all methods that PEFT implements."""

import contextlib
import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lorry_components.methods.base import AdaptedModel, Method, list_newly_initialized_modules
from lorry_components.methods.peft.spans import wrap_for_spans
from lorry_components.methods.tensors import load_tensors, save_tensors
from lorry_registry.adapters.verification import read_config
from lorry_registry.errors import AdapterRejectedError, TrainingError
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.manifest import CONFIG_NAME, BaseIdentity

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel

ADAPTER = "default"

# Fields by which PEFT would read other files, access a hub, or import a module that a configuration names.
REACHING_FIELDS = frozenset(
    {
        *("adapters", "corda_config", "eva_config", "lora_ga_config", "megatron_config", "megatron_core"),
        *("prompt_tuning_init_state_dict_path", "shadow_model", "tokenizer_kwargs", "tokenizer_name_or_path"),
    }
)


# What an adapter is at its end does not depend on how it began, where its base lay, or on dropout.
_NOT_COMPARED = frozenset(
    {
        *("base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping"),
        *("init_lora_weights", "init_ia3_weights", "lora_dropout", "runtime_config"),
    }
)


class PeftMethod(Method):
    """A method that is a PEFT configuration class.

    PEFT's own loader is not used: it would fall back to pickles, access a hub, and ignore unknown fields. The
    configuration and the tensors are checked here and then passed to PEFT.

    Attributes:
        peft_type: PEFT's name of the method.
    """

    freezes_base = True
    max_adapter_mib = 64.0
    peft_type: ClassVar[str]

    @abstractmethod
    def build_config(self, model: "PreTrainedModel") -> "PeftConfig":
        """Return PEFT's configuration for a base.

        Raises:
            TrainingError: The options do not fit this base.
        """

    def adapt(self, model: "PreTrainedModel", newly_initialized: frozenset[str]) -> "nn.Module":
        """Wrap the base with PEFT; the head and other newly initialized modules are trained in full."""
        config: Any = self.build_config(model)
        config.modules_to_save = list_newly_initialized_modules(model, newly_initialized) or None
        return self._wrap(model, config)

    def save(self, model: "nn.Module", folder: Path, base: BaseIdentity) -> None:
        """Write PEFT's own layout, so that PEFT and servers that know it can read the adapter."""
        peft_model: PeftModel = model  # type: ignore[assignment]
        config = self.describe_config(peft_model)
        # The base's folder on this machine means nothing elsewhere; its name in the task does.
        config |= {"base_model_name_or_path": base.model, "revision": base.revision, "inference_mode": True}
        document = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        write_whole_text(folder / CONFIG_NAME, json.dumps(document, indent=2, sort_keys=True) + "\n")
        save_tensors(self.collect_tensors(peft_model), folder)

    def describe_config(self, model: "PeftModel") -> dict[str, Any]:
        """Return the configuration that is saved."""
        document: dict[str, Any] = model.peft_config[ADAPTER].to_dict()
        return document

    def collect_tensors(self, model: "PeftModel") -> "dict[str, torch.Tensor]":
        """Return the tensors that are saved."""
        return _list_tensors(model)

    def list_shapes(self, model: "nn.Module") -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of PEFT's tensors."""
        return {name: tuple(tensor.shape) for name, tensor in _list_tensors(model).items()}

    def restore(
        self, model: "PreTrainedModel", folder: Path, newly_initialized: frozenset[str]
    ) -> AdaptedModel:
        """Rebuild the wrapper from the saved configuration and copy exactly its tensors in."""
        from peft import set_peft_model_state_dict

        config = self.read_config(folder)
        # The base was identified by its fingerprint; PEFT would warn that its folder has another name here.
        config.base_model_name_or_path = getattr(model, "name_or_path", None)
        try:
            peft_model = self._wrap(model, config)
        except TrainingError as error:
            raise AdapterRejectedError(error.what, where=str(folder), todo="pull it again") from error
        tensors = load_tensors(folder, self.collect_tensors(peft_model), newly_initialized)
        set_peft_model_state_dict(peft_model, tensors)
        peft_model.eval()
        return AdaptedModel(peft_model, lambda: without_adapter(peft_model))

    def continue_from(self, model: "nn.Module", folder: Path, newly_initialized: frozenset[str]) -> None:
        """Copy the tensors of an adapter in that was saved with the same configuration."""
        from peft import set_peft_model_state_dict

        peft_model: PeftModel = model  # type: ignore[assignment]
        saved, present = self.read_config(folder).to_dict(), self.describe_config(peft_model)
        differing = [
            name
            for name in sorted(saved.keys() - _NOT_COMPARED)
            if _make_comparable(saved[name]) != _make_comparable(present.get(name))
        ]
        if differing:
            raise AdapterRejectedError(
                f"it was trained with another {', '.join(differing)}", where=str(folder / CONFIG_NAME)
            )
        tensors = load_tensors(folder, self.collect_tensors(peft_model), newly_initialized)
        set_peft_model_state_dict(peft_model, tensors)

    def _wrap(self, model: "PreTrainedModel", config: "PeftConfig") -> "PeftModel":
        from peft import get_peft_model

        try:
            if config.task_type == "QUESTION_ANS":
                return wrap_for_spans(model, config, ADAPTER)
            return get_peft_model(model, config, adapter_name=ADAPTER)
        except ValueError as error:
            raise TrainingError(
                f"PEFT cannot put {self.name} on {type(model).__name__}: {error}",
                where="method",
                todo="choose targets that this base has, or another method",
            ) from error

    def read_config(self, folder: Path) -> "PeftConfig":
        """Read the configuration of a saved adapter.

        Raises:
            AdapterRejectedError: This version of PEFT would ignore a part of it, or it refers to other files
                than the adapter's own.
        """
        document = read_config(folder)
        path = str(folder / CONFIG_NAME)
        config_class = self.find_config_class(document.get("peft_type"), path)
        known = {field.name: field for field in fields(config_class)}
        unknown = sorted(document.keys() - known.keys())
        if unknown:
            raise AdapterRejectedError(
                f"{', '.join(unknown)} would be ignored by this version of PEFT",
                where=path,
                todo="upgrade peft to the version that trained the adapter",
            )
        reaching = [
            name
            for name in sorted(document.keys() & REACHING_FIELDS)
            if document[name] not in (None, known[name].default)
        ]
        if reaching:
            raise AdapterRejectedError(
                f"{', '.join(reaching)} would make PEFT load what is no part of this adapter",
                where=path,
                todo="do not use it: no adapter of lorry has these fields",
            )
        try:
            config: PeftConfig = config_class(
                **{key: value for key, value in document.items() if key != "peft_type"}
            )
        except (TypeError, ValueError) as error:
            raise AdapterRejectedError(
                f"not a configuration: {error}", where=path, todo="pull it again"
            ) from error
        return config

    def find_config_class(self, peft_type: object, path: str) -> Any:
        """Return PEFT's class for the type that a configuration names.

        Raises:
            AdapterRejectedError: The type is not this method's.
        """
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

        if peft_type != self.peft_type:
            raise AdapterRejectedError(
                f"peft_type is {peft_type!r}, and that of {self.name} is {self.peft_type!r}",
                where=path,
                todo="pull it again, or upgrade lorry",
            )
        return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(self.peft_type)]


def _make_comparable(value: Any) -> Any:
    """Return a value of a configuration: lists come back as sets, and enumerations as texts."""
    if isinstance(value, set | list | tuple):
        return sorted(map(str, value))
    return getattr(value, "value", value)


@contextlib.contextmanager
def without_adapter(model: Any) -> Iterator[None]:
    """Switch the change to the base off, but leave the trained head in place.

    PEFT's own ``disable_adapter`` also restores the untrained head, whose weights are random.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)


def _list_tensors(model: Any) -> "dict[str, torch.Tensor]":
    from peft import get_peft_model_state_dict

    tensors: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return tensors
