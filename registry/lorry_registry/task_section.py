"""What all sections of a task file have in common."""

from collections.abc import Collection
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """A frozen section of a task file, which refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


def leave_out_defaults(
    section: Section, document: dict[str, JsonValue], names: Collection[str]
) -> dict[str, JsonValue]:
    """Return a section's document without those of the named fields that have their default values."""
    fields = type(section).model_fields
    return {
        name: value for name, value in document.items() if name not in names or value != fields[name].default
    }
