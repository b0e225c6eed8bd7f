"""Are these parts fit to train on, and to be scored on? What is not is a fault; what is odd is a warning."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lorry_components.data.examples import Example, Key
from lorry_components.data.faults import FaultLog, quote
from lorry_components.data.layout import PARTS
from lorry_components.data.rows import MISSING_WORDS, LabelForm

DUPLICATES_DROPPED = "training rows whose text is in validation or test"

_HELD_OUT = ("validation", "test")
_MIN_TRAIN_ROWS = 2
_FEW_ROWS = 30
_EXAMPLES = 3
# Relative to the largest label: below it, differences are rounding.
_CONSTANT_SPREAD = 1e-9
_DOMINANT_SHARE = 0.99


@dataclass(frozen=True, slots=True)
class CheckedParts:
    """Parts that can be used.

    Attributes:
        parts: Part -> examples.
        dropped: Reason -> how many rows were left out for it.
        warnings: What a person should know before trusting a score, a sentence each.
    """

    parts: Mapping[str, list[Example]]
    dropped: Mapping[str, int]
    warnings: tuple[str, ...]


def check_parts(
    parts: Mapping[str, Sequence[Example]],
    *,
    label_form: LabelForm,
    duplicates: Literal["drop", "refuse", "keep"],
    source: str,
    by_context: bool = False,
) -> CheckedParts:
    """Check parts against one another, and drop training rows that a held-out part has too.

    Args:
        parts: The examples of train, validation and test.
        label_form: What labels are.
        duplicates: What to do with texts that are in several parts.
        source: What the error calls the data.
        by_context: Whether pairs are contexts that several texts ask about.

    Raises:
        InvalidDataError: A part is too small, a held-out class is not in train, train has one class or
            one value only, or texts are in several parts and that is refused. All are reported at once.
    """
    log = FaultLog(source)
    warnings: list[str] = []
    checked = {part: list(parts[part]) for part in PARTS}
    dropped = _settle_duplicates(checked, duplicates, log, warnings)
    _check_sizes(checked, dropped, log, warnings)
    if label_form == "class":
        _check_classes(checked, dropped, log, warnings)
        _warn_of_odd_classes(checked, warnings)
        _warn_of_contradictions(checked["train"], warnings)
    elif label_form == "number":
        _check_numbers(checked, log, warnings)
    if by_context:
        _warn_of_shared_contexts(checked, warnings)
    log.raise_if_any()
    return CheckedParts(checked, {DUPLICATES_DROPPED: dropped} if dropped else {}, tuple(warnings))


def _settle_duplicates(
    parts: dict[str, list[Example]], duplicates: str, log: FaultLog, warnings: list[str]
) -> int:
    """Return how many training rows were dropped."""
    held_out = {example.key for part in _HELD_OUT for example in parts[part]}
    repeated = [example for example in parts["train"] if example.key in held_out]
    if repeated:
        description = (
            f"{_count(repeated, 'row')} of train with a text of validation or test: {_show(repeated)}"
        )
        if duplicates == "refuse":
            log.add_file("train", f"has {description}", "remove them, or set data.duplicates: drop")
        elif duplicates == "keep":
            warnings.append(f"kept {description}; scores flatter the adapter")
        else:
            parts["train"] = [example for example in parts["train"] if example.key not in held_out]
            warnings.append(f"dropped {description}")
    _compare_held_out(parts, duplicates, log, warnings)
    return len(repeated) if duplicates == "drop" else 0


def _compare_held_out(
    parts: Mapping[str, list[Example]], duplicates: str, log: FaultLog, warnings: list[str]
) -> None:
    validation = {example.key for example in parts["validation"]}
    shared = [example for example in parts["test"] if example.key in validation]
    if not shared:
        return
    description = f"{_count(shared, 'row')} with a text of validation: {_show(shared)}"
    if duplicates == "refuse":
        log.add_file("test", f"has {description}", "remove them from one of the two")
    else:
        warnings.append(f"test has {description}; choosing an epoch on validation flatters the score on test")


def _check_sizes(
    parts: Mapping[str, list[Example]], dropped: int, log: FaultLog, warnings: list[str]
) -> None:
    for part in _HELD_OUT:
        count = len(parts[part])
        if count == 0:
            log.add_file(part, "has no rows", "give more data, or larger shares in data.split")
        elif count < _FEW_ROWS:
            warnings.append(f"{part} has only {count} row{'' if count == 1 else 's'}: scores on it are rough")
    if len(parts["train"]) < _MIN_TRAIN_ROWS:
        why = f", after {dropped} were dropped as duplicates of held-out rows" if dropped else ""
        log.add_file(
            "train", f"has {_count(parts['train'], 'row')}{why}; at least {_MIN_TRAIN_ROWS} are needed"
        )


def _check_classes(
    parts: Mapping[str, list[Example]], dropped: int, log: FaultLog, warnings: list[str]
) -> None:
    trained = Counter(str(example.label) for example in parts["train"])
    for part in _HELD_OUT:
        unknown = [example for example in parts[part] if str(example.label) not in trained]
        if unknown and trained:
            names = sorted({str(example.label) for example in unknown})
            why = " once duplicates of held-out rows are dropped" if dropped else ""
            log.add_file(
                part,
                f"has {_count(unknown, 'row')} of {_count(names, 'class', 'classes')} that train lacks{why} "
                f"({_list(names)}): {_show(unknown)}",
                "add such rows to train, or remove these",
            )
        absent = sorted(set(trained) - {str(example.label) for example in parts[part]})
        if absent and parts[part]:
            warnings.append(
                f"{part} has no row of {_count(absent, 'class', 'classes')} that train has, "
                f"{_list(absent)}: how well they are predicted is not measured"
            )
    if len(trained) == 1 and len(parts["train"]) >= _MIN_TRAIN_ROWS:
        only = next(iter(trained))
        log.add_file(
            "train",
            f"has one class only, {quote(only)}, in {trained[only]:,} rows; there is nothing to learn",
        )
    if len(trained) > len(parts["train"]) / 2 and len(parts["train"]) >= _FEW_ROWS:
        warnings.append(
            f"train has {len(trained):,} classes in {len(parts['train']):,} rows ({_list(sorted(trained))}): "
            "is this the right label column, or should kind be regression?"
        )


def _warn_of_odd_classes(parts: Mapping[str, list[Example]], warnings: list[str]) -> None:
    counts = Counter(str(example.label) for examples in parts.values() for example in examples)
    missing = sorted(MISSING_WORDS & set(counts))
    if missing:
        rows = sum(counts[name] for name in missing)
        warnings.append(
            f"{_list(missing)} is a class of {rows:,} rows, and what programs write for a missing value: "
            "data.on_fault: drop leaves out rows without a label"
        )
    for folded in sorted({name.casefold() for name in counts}):
        alike = sorted(name for name in counts if name.casefold() == folded)
        if len(alike) > 1:
            rows_of = ", ".join(f"{quote(name)} in {counts[name]:,} rows" for name in alike)
            warnings.append(
                f"classes differ in capital letters alone, and are learned as different: {rows_of}"
            )


def _check_numbers(parts: Mapping[str, list[Example]], log: FaultLog, warnings: list[str]) -> None:
    for part in PARTS:
        numbers = [float(example.label) for example in parts[part]]
        if len(numbers) < 2:
            continue
        spread = max(numbers) - min(numbers)
        value, count = Counter(numbers).most_common(1)[0]
        if spread <= _CONSTANT_SPREAD * max(abs(number) for number in numbers):
            description = f"has the same label, {value:g}, in each of its {len(numbers):,} rows"
            if part == "train":
                log.add_file(part, f"{description}; there is nothing to learn")
            else:
                warnings.append(f"{part} {description}: a correlation with it is always 0")
        elif count >= _DOMINANT_SHARE * len(numbers):
            warnings.append(f"{part} has the label {value:g} in {count:,} of its {len(numbers):,} rows")


def _warn_of_contradictions(train: Sequence[Example], warnings: list[str]) -> None:
    first: dict[Key, Example] = {}
    contradicted = [
        example for example in train if first.setdefault(example.key, example).label != example.label
    ]
    if contradicted:
        warnings.append(
            f"train has {_count(contradicted, 'row')} whose text it has with another class too: "
            f"{_show(contradicted)}"
        )


def _warn_of_shared_contexts(parts: Mapping[str, list[Example]], warnings: list[str]) -> None:
    trained = {example.key[1] for example in parts["train"]}
    for part in _HELD_OUT:
        shared = [example for example in parts[part] if example.key[1] in trained]
        if shared:
            warnings.append(
                f"{part} has {_count(shared, 'row')} with a context that train asks about too: "
                "scores say how well known contexts are read, and flatter the adapter on new ones"
            )


def _count(things: Sequence[object], one: str, many: str = "") -> str:
    return f"{len(things):,} {one if len(things) == 1 else many or f'{one}s'}"


def _show(examples: Iterable[Example]) -> str:
    """Return up to three distinct texts, shortened."""
    texts = list(dict.fromkeys(example.row["text"].strip() for example in examples))
    more = f" and {len(texts) - _EXAMPLES:,} more" if len(texts) > _EXAMPLES else ""
    return ", ".join(quote(text) for text in texts[:_EXAMPLES]) + more


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _EXAMPLES:,} more" if len(names) > _EXAMPLES else ""
    return ", ".join(quote(name) for name in names[:_EXAMPLES]) + more
