"""An extension of griffe: a docstring's ``:class:`~module.Name``` is read as the name alone."""

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`(?P<short>~)?(?P<path>[^`]+)`")


class DocstringRoles(Extension):
    """Takes the roles of Sphinx out of docstrings, which are Markdown on the site."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rewrite an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_name, obj.docstring.value)


def _name(found: re.Match[str]) -> str:
    path = found["path"]
    return f"`{path.rpartition('.')[2] if found['short'] else path}`"
