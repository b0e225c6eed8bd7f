"""Any further method of PEFT, by the name that PEFT has for it: ``{name: peft, type: MISS, r: 16}``."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from lorry_components.methods.base import MethodOptions, ReadOptions, refuse_faults, report_unknown
from lorry_components.methods.peft.base import REACHING_FIELDS, PeftMethod
from lorry_components.models.blocks import build_skeleton
from lorry_registry.errors import AdapterRejectedError, Fault
from lorry_registry.tasks.task_document import suggest_name
from lorry_registry.tasks.task_loading import describe_fault

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PretrainedConfig, PreTrainedModel

# What is not for a task file to decide.
_OWN_FIELDS = REACHING_FIELDS | {
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "modules_to_save", "runtime_config"),
}
_OWN_METHODS = {
    "PROMPT_TUNING": "write name: prompt-tuning, which works on decoders too",
    "P_TUNING": "write name: p-tuning, which works on decoders too",
    "PREFIX_TUNING": "write name: p-tuning-v2, which works with this version of transformers",
    "ADALORA": "write name: adalora, which knows the number of steps",
}
_IMPOSSIBLE = {
    "ADAPTION_PROMPT": "its change to the base cannot be switched off, as a comparison with the base needs",
    "CARTRIDGE": "it is initialized by running the model on a text, which a task file cannot do",
    "CPT": "it is initialized from the tokens of a prompt, which a task file cannot name",
    "MULTITASK_PROMPT_TUNING": "it needs the number of a task with every row",
    "POLY": "it needs the number of a task with every row",
    "XLORA": "it mixes trained adapters, and a task file trains one",
}
_REFUSED = _OWN_METHODS.keys() | _IMPOSSIBLE.keys()
_WITH_HEAD = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
_WRITING = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
_STARTS = ("gaussian", "orthogonal")


class AnyPeftOptions(MethodOptions):
    """The options: the type, and fields of PEFT's configuration class.

    Attributes:
        type: PEFT's name of the method.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str


class AnyPeft(PeftMethod):
    """A method of PEFT that has no module here."""

    name = "peft"
    peft_type = "any"
    summary = "any further method of PEFT, by its type"
    learning_rate = 1e-3
    learns_matrices = True
    # Most do; how each begins is for PEFT to know.
    adds_positions = True
    starts_as_base = False
    code_version = 2
    options_model = AnyPeftOptions

    def __init__(
        self, options: MethodOptions | Mapping[str, Any] | None, peft_task_type: str | None = None
    ) -> None:
        if isinstance(options, Mapping):
            refuse_faults(_check_options(options))
        super().__init__(options, peft_task_type)

    @classmethod
    def read_options(cls, options: Mapping[str, Any]) -> ReadOptions:
        """Check the type, and the options against the fields of PEFT's configuration class."""
        faults = tuple(_check_options(options))
        return ReadOptions(None, faults) if faults else super().read_options(options)

    def build_config(self, model: "PreTrainedModel") -> "PeftConfig":
        """Return the configuration of PEFT's class."""
        config: PeftConfig = self._build_config()
        return config

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that PEFT can apply the method to a base of this architecture."""
        built = self._build_config()
        if not hasattr(built, "modules_to_save") and self.peft_task_type in _WITH_HEAD:
            yield Fault("method.type", f"PEFT's {self.options.type} cannot store the head of this task type")
        yield from self._check_model(build_skeleton(config))

    def find_config_class(self, peft_type: object, path: str) -> Any:
        """Return PEFT's class for any type that a task file may name."""
        classes = _list_classes()
        if not isinstance(peft_type, str) or peft_type not in classes or peft_type in _REFUSED:
            raise AdapterRejectedError(
                f"peft_type is {peft_type!r}, which lorry does not train with this version of PEFT",
                where=path,
                todo="pull it again, or upgrade peft",
            )
        return classes[peft_type]

    def _build_config(self, **changes: Any) -> Any:
        config_class = _list_classes()[self.options.type.upper()]
        return config_class(
            **{"task_type": self.peft_task_type, **(self.options.model_extra or {}), **changes}
        )

    def _check_model(self, skeleton: "PreTrainedModel") -> Iterator[Fault]:
        import torch
        from peft import get_peft_model

        # PEFT's classes for writing text need an output layer and generate(), and a skeleton has neither.
        task = {"task_type": None} if self.peft_task_type in _WRITING else {}
        try:
            with torch.device("meta"):
                get_peft_model(skeleton, self._build_config(**task))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            yield Fault("method", f"PEFT refuses {self.options.type} here: {error}".splitlines()[0])
        except (RuntimeError, NotImplementedError):
            # It computes with the base's weights, and a skeleton has none.
            return


def _list_classes() -> dict[str, Any]:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    return {
        str(peft_type.value): config_class for peft_type, config_class in PEFT_TYPE_TO_CONFIG_MAPPING.items()
    }


def _check_options(options: Mapping[str, Any]) -> Iterator[Fault]:
    given = options.get("type")
    if not isinstance(given, str):
        yield Fault("method.type", "is missing: it is PEFT's name of a method, such as MISS")
        return
    name, classes = given.upper(), _list_classes()
    if name in _OWN_METHODS:
        yield Fault("method.type", f"{given} is not possible here", _OWN_METHODS[name])
    elif name in _IMPOSSIBLE:
        yield Fault("method.type", f"{given} is not possible here: {_IMPOSSIBLE[name]}")
    elif name not in classes:
        yield Fault("method.type", f"PEFT has no type {given!r}", suggest_name(name, classes))
    else:
        yield from _check_fields(name, classes[name], options)


def _check_fields(name: str, config_class: Any, options: Mapping[str, Any]) -> Iterator[Fault]:
    given = {key: value for key, value in options.items() if key != "type"}
    known = {field.name for field in dataclasses.fields(config_class) if field.init} - _OWN_FIELDS
    hints = typing.get_type_hints(config_class)
    faults = [report_unknown(f"peft {name}", option, known) for option in given if option not in known]
    for option in given.keys() & known:
        faults.extend(_check_value(option, hints[option], given[option]))
    start = given.get("init_lora_weights")
    if isinstance(start, str) and start not in _STARTS:
        faults.append(
            Fault(
                "method.init_lora_weights",
                f"{start} changes the base's weights or needs data",
                f"known are {', '.join(_STARTS)}; name: lora has pissa and olora",
            )
        )
    yield from faults
    if not faults:
        try:
            config_class(**given)
        except (TypeError, ValueError) as error:
            yield Fault("method", f"{error}".splitlines()[0])


def _check_value(option: str, hint: Any, value: Any) -> Iterator[Fault]:
    try:
        TypeAdapter(hint).validate_python(value)
    except PydanticSchemaGenerationError:
        # A type that only PEFT knows is left to PEFT.
        return
    except ValidationError as error:
        yield describe_fault(error.errors()[0] | {"loc": ("method", option)})
