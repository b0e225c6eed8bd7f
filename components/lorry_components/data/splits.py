"""One table becomes train, validation and test: by a seed, and in the same way for ever.

Each distinct text (with its pair) draws a number from the digest of the seed and itself, and its side
follows from that number alone. So it does not matter in which order the rows stand; rows that are appended
later do not move those that were there, which keeps a champion from being scored on what it was trained on;
and no version of Python draws differently. The price is that the shares are met on average, not exactly.

Only where a class would be missing from a part are texts of that class moved, as few as can be.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from lorry_components.data.examples import Example, Key
from lorry_components.data.layout import PARTS
from lorry_components.data.rows import LabelForm
from lorry_registry.files.digests import canonical_json
from lorry_registry.tasks.input_specs import PartLimits, SeededSplit

_DRAWS = 1 << 64
_ALL = ""


def split_examples(
    examples: Sequence[Example], split: SeededSplit, *, label_form: LabelForm, by_context: bool = False
) -> dict[str, list[Example]]:
    """Divide one table into its parts.

    Examples with the same text and pair land on one side. So do those with the same pair where it is a
    context, for an adapter that was trained on other questions about it knows it; unless there are fewer than
    three contexts, which cannot be divided. Every class (or, without classes, the whole table) that has three
    distinct texts or more is in each part, where texts of several classes do not stand in the way; every
    class is in train.

    Args:
        examples: The table.
        split: The shares and the seed.
        label_form: What labels are.
        by_context: Whether pairs are contexts that several texts ask about.

    Returns:
        Part -> examples, in the order of the table. A part may be empty when there are under three texts.
    """
    draws: dict[Key, int] = {}
    classes: dict[Key, set[str]] = {}
    units = _list_units(examples, by_context=by_context)
    for example, key in zip(examples, units, strict=True):
        if key not in draws:
            draws[key] = _draw_number(split.seed, key)
            classes[key] = set()
        classes[key].add(str(example.label) if label_form == "class" else _ALL)
    sides = {key: _choose_side(draw, split) for key, draw in draws.items()}
    _spread_classes(sides, draws, classes)
    parts: dict[str, list[Example]] = {part: [] for part in PARTS}
    for example, key in zip(examples, units, strict=True):
        parts[sides[key]].append(example)
    return parts


def _list_units(examples: Sequence[Example], *, by_context: bool) -> list[Key]:
    """Return for each example what it has to stay together with."""
    if by_context:
        contexts = [("", pair) for _, pair in (example.key for example in examples)]
        if len(set(contexts)) >= len(PARTS):
            return contexts
    return [example.key for example in examples]


def limit_parts(parts: Mapping[str, Sequence[Example]], limits: PartLimits) -> dict[str, list[Example]]:
    """Return parts of no more rows than they may have, in their order.

    Which rows stay follows from the seed and their texts, as above: rows that are added later take the place
    of few. All rows of one text stay or go together, as far as the limit allows.
    """
    return {part: _limit(examples, getattr(limits, part), limits.seed) for part, examples in parts.items()}


def _limit(examples: Sequence[Example], limit: int | None, seed: int) -> list[Example]:
    if limit is None or len(examples) <= limit:
        return list(examples)
    order = sorted(range(len(examples)), key=lambda index: (_draw_number(seed, examples[index].key), index))
    return [examples[index] for index in sorted(order[:limit])]


def _draw_number(seed: int, key: Key) -> int:
    """Return a number below 2**64 that only the seed and the text decide."""
    return int.from_bytes(hashlib.sha256(canonical_json([seed, *key])).digest()[:8])


def _choose_side(draw: int, split: SeededSplit) -> str:
    if draw < split.test * _DRAWS:
        return "test"
    return "validation" if draw < (split.test + split.validation) * _DRAWS else "train"


def _spread_classes(sides: dict[Key, str], draws: Mapping[Key, int], classes: Mapping[Key, set[str]]) -> None:
    """Move texts so that each class is in each part. Train comes last: that it has a class goes first."""
    members: dict[str, list[Key]] = {}
    for key in sorted(draws, key=lambda key: (draws[key], key)):
        for name in classes[key]:
            members.setdefault(name, []).append(key)
    for part in ("test", "validation", "train"):
        for name in sorted(members):
            keys = members[name]
            enough = len(keys) >= len(PARTS) or part == "train"
            if enough and all(sides[key] != part for key in keys):
                sides[_pick_text(keys, sides, classes, part)] = part


def _pick_text(
    keys: Sequence[Key], sides: Mapping[Key, str], classes: Mapping[Key, set[str]], part: str
) -> Key:
    """Return the text of a class to move: from the side with most, if possible of no other class.

    The lowest draw is the nearest to being held out anyway, and the highest the nearest to train.
    """
    counts = Counter(sides[key] for key in keys)
    fullest = max(PARTS, key=lambda side: counts[side])
    candidates = [key for key in keys if sides[key] == fullest]
    alone = [key for key in candidates if len(classes[key]) == 1] or candidates
    return alone[-1] if part == "train" else alone[0]
