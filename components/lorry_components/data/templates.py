"""Templates with soft tokens: what a base reads, word by word, and where learned tokens stand between.

``[P]`` is a soft token and ``[P]*3`` three of them, as Liu et al. 2021 write them
(https://arxiv.org/abs/2103.10385); ``{text}``, ``{text_pair}`` and ``{label}`` are filled in; all else are
words. A task type turns soft tokens into the numbers below 0: -1 is the first, -2 the second.
A method puts its vectors there.
"""

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorry_registry.errors import InvalidValueError

FIELDS = ("text", "text_pair", "label")
"""What a template may name."""

_SOFT = re.compile(r"\[P\](?:\*(\d{1,4}))?")
_MAX_SOFT = 4096


@dataclass(frozen=True, slots=True)
class Words:
    """Words as they are, with their white space."""

    text: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A field of the row."""

    name: str


@dataclass(frozen=True, slots=True)
class Soft:
    """Soft tokens in a row.

    Attributes:
        first: The number of the first one, from 0.
        count: How many.
    """

    first: int
    count: int

    @property
    def ids(self) -> list[int]:
        """The numbers that stand for them in a model's input."""
        return [-1 - index for index in range(self.first, self.first + self.count)]


Part = Words | Slot | Soft


def parse_template(template: str) -> tuple[Part, ...]:
    """Return the parts of a template, in order.

    Raises:
        ValueError: It is no template; the message says why.
    """
    parts: list[Part] = []
    start = soft = 0
    for match in _SOFT.finditer(template):
        parts.extend(_parse_words(template[start : match.start()]))
        count = int(match[1] or 1)
        if count == 0:
            raise InvalidValueError("[P]*0 is no soft token", "leave it out")
        parts.append(Soft(soft, count))
        soft += count
        start = match.end()
    parts.extend(_parse_words(template[start:]))
    if soft > _MAX_SOFT:
        raise ValueError(f"has {soft} soft tokens, more than {_MAX_SOFT}")
    return tuple(parts)


def count_soft_tokens(parts: Sequence[Part]) -> int:
    """Return how many soft tokens a template has."""
    return sum(part.count for part in parts if isinstance(part, Soft))


def list_slots(parts: Sequence[Part]) -> list[str]:
    """Return the fields that a template names, in order."""
    return [part.name for part in parts if isinstance(part, Slot)]


def have_same_words(first: str, second: str) -> bool:
    """Return whether two templates differ in nothing but their soft tokens and white space."""
    return _squeeze(first) == _squeeze(second)


def insert_soft_tokens(template: str, tokens: int = 3) -> str:
    """Return a template with so many soft tokens before and after each text, and before the label.

    So Liu et al. do it for LAMA, with three at each place. Of its words nothing is changed.
    """
    run = f"[P]*{tokens}" if tokens > 1 else "[P]"
    around = re.sub(r"\{(text|text_pair)\}", rf"{run} {{\1}} {run}", template)
    softened = around.replace("{label}", f"{run} {{label}}")
    # Two runs beside one another, at one place, are one.
    return re.sub(rf"{re.escape(run)}\s+{re.escape(run)}", run, softened)


def _squeeze(template: str) -> str:
    return "".join(_SOFT.sub("", template).split())


def _parse_words(template: str) -> Iterator[Part]:
    for text, name, format_spec, conversion in string.Formatter().parse(template):
        if text:
            yield Words(text)
        if name is None:
            continue
        if name not in FIELDS:
            raise InvalidValueError(f"there is no {{{name}}}", "write {text}, {text_pair} or {label}")
        if format_spec or conversion:
            raise ValueError(f"{{{name}}} takes no format")
        yield Slot(name)
