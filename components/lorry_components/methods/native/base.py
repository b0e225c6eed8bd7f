"""The configuration file that the methods without PEFT share."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lorry_components.methods.base import Method
from lorry_registry.adapters.verification import read_config
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.manifest import CONFIG_NAME, BaseIdentity


class NativeConfig(BaseModel):
    """``adapter_config.json`` of a method without PEFT.

    Attributes:
        lorry_method: The method's name.
        base_model_name_or_path: The base, under the name that PEFT's configurations give it.
        revision: The commit of the base.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    lorry_method: str
    base_model_name_or_path: str
    revision: str | None


class NativeMethod(Method):
    """A method that changes the base without PEFT.

    Attributes:
        config_model: The model of the configuration that is saved beside its tensors.
    """

    config_model: type[NativeConfig] = NativeConfig

    def write_config(self, folder: Path, base: BaseIdentity, **further: Any) -> None:
        """Write ``adapter_config.json``, with the further fields of the method."""
        config = self.config_model(
            lorry_method=self.name,
            base_model_name_or_path=base.model,
            revision=base.revision,
            **further,
        )
        text = json.dumps(config.model_dump(mode="json"), indent=2, sort_keys=True)
        write_whole_text(folder / CONFIG_NAME, f"{text}\n")

    def read_config(self, folder: Path) -> Any:
        """Read the configuration of a saved adapter, a :attr:`config_model`.

        Raises:
            AdapterRejectedError: It is that of another method, or not as this version writes it.
        """
        document, path = read_config(folder), str(folder / CONFIG_NAME)
        if document.get("lorry_method") != self.name:
            raise AdapterRejectedError(
                f"it does not hold an adapter of method {self.name}", where=path, todo="pull it again"
            )
        try:
            return self.config_model.model_validate(document)
        except ValidationError as error:
            detail = error.errors()[0]
            field = ".".join(str(part) for part in detail["loc"])
            raise AdapterRejectedError(
                f"not a configuration: {field} {detail['msg']}", where=path, todo="pull it again"
            ) from error
