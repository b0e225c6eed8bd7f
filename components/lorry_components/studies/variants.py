"""From a request to compare to checked variants of a task; all faults are reported at once."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from lorry_components.models.bases import find_base_folder
from lorry_components.task_types.input_form import LINEAR_PROBE
from lorry_components.tasks.base_checks import check_base
from lorry_components.tasks.definition import define_task, find_method
from lorry_components.training.setup.optimizers import require_optimizer
from lorry_registry.errors import Fault, InvalidTaskError, MissingExtraError
from lorry_registry.tasks.base_places import BasePlace
from lorry_registry.tasks.task_document import apply_overrides, load_document, parse_value
from lorry_registry.tasks.task_loading import place_base
from lorry_registry.tasks.task_spec import TaskSpec

_TODO = "correct these and try again; nothing was trained"
_OPENING, _CLOSING = "[{", "]}"
TRAIN = "train."
_SEED = "train.seed"
_RECOMMENDED = ("method", "train", "head")
_OF_TRAINED_HEADS = ("init", "dropout", "learning_rate")
# What a value looks like inside a label: no brackets, quotes or spaces.
_LABEL_TABLE = str.maketrans("", "", "[]{}'\" ")


@dataclass(frozen=True, slots=True)
class TaskDocument:
    """A task file whose sections are varied.

    Attributes:
        path: The file.
        content: Its content, with the command line's settings applied.
        lines: The line of each field, by dotted name.
        settings: The names of the fields that the command line set.
        bases: Where this machine has bases with a logical name.
    """

    path: Path
    content: Mapping[str, Any]
    lines: Mapping[str, int]
    settings: frozenset[str] = frozenset()
    bases: BasePlace = field(default_factory=BasePlace)

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = (), *, bases: BasePlace | None = None) -> Self:
        """Read a task file.

        Args:
            path: The file.
            overrides: Settings of the form FIELD=VALUE.
            bases: Where this machine has bases with a logical name; None: nowhere.

        Raises:
            InvalidTaskError: It is not one YAML mapping.
            UsageError: A setting is not of the form FIELD=VALUE.
        """
        loaded = load_document(path)
        content = apply_overrides(loaded.content, overrides, where=str(path))
        settings = frozenset(override.partition("=")[0] for override in overrides)
        return cls(path, content, loaded.lines, settings, bases or BasePlace())

    @property
    def method(self) -> dict[str, Any]:
        """The task's own method section, with its options beside the name; empty when it has none."""
        section = self.content.get("method")
        if not isinstance(section, Mapping):
            return {}
        options = section.get("options")
        if not isinstance(options, Mapping):
            return dict(section)
        return {key: value for key, value in section.items() if key != "options"} | dict(options)

    @property
    def method_settings(self) -> dict[str, Any]:
        """The options that the command line set, without the name: they apply to all methods."""
        keys = [_find_option(field) for field in sorted(self.settings)]
        return {key: self.method[key] for key in keys if key not in ("", "name") and key in self.method}

    def sets(self, field: str) -> bool:
        """Return whether the command line set a field, alone or with the section that it is in."""
        section, _, name = field.partition(".")
        content = self.content.get(section)
        is_in_section = section in self.settings and isinstance(content, Mapping) and name in content
        is_below = any(setting.startswith(f"{field}.") for setting in self.settings)
        return field in self.settings or is_in_section or is_below

    def list_settings(self, section: str) -> list[str]:
        """Return the fields of a section that the command line set, alone or with the section."""
        content = self.content.get(section)
        return (
            [name for name in content if self.sets(f"{section}.{name}")]
            if isinstance(content, Mapping)
            else []
        )

    def list_settings_elsewhere(self) -> list[str]:
        """Return the dotted names that the command line set, but for those of a recommended section."""
        return sorted(field for field in self.settings if field.partition(".")[0] not in _RECOMMENDED)

    def list_own_faults(self) -> list[Fault]:
        """Return what is wrong with the file itself, with its lines.

        Options that the command line set apply to all methods: each method checks whether it has them.
        """
        try:
            self.parse()
        except InvalidTaskError as error:
            return [fault for fault in error.faults if not self.sets_option(fault.where)]
        return []

    def leave_out_own_faults(self, faults: Sequence[Fault]) -> list[Fault]:
        """Return those of a changed content's faults that the file itself does not have."""
        if not faults:
            return []
        own = {replace(fault, line=None) for fault in self.list_own_faults()}
        return [fault for fault in faults if fault not in own]

    def sets_option(self, field: str) -> bool:
        """Return whether a field is an option that the command line set for all methods."""
        return _find_option(field) in self.method_settings

    def parse(self, content: Mapping[str, Any] | None = None) -> TaskSpec:
        """Turn a content, or the file's own, into a checked task.

        Raises:
            InvalidTaskError: It has faults; with ``is_numbered`` they have the file's lines.
        """
        spec = define_task(
            self.content if content is None else content,
            where=str(self.path),
            folder=self.path.parent,
            lines=self.lines if content is None else None,
        )
        return place_base(spec, self.bases)


@dataclass(frozen=True, slots=True)
class Draft:
    """A variant of a task, before it is checked.

    Attributes:
        label: Its name in tables.
        method: Its method section; None: the task's own.
        train: Fields of the train section that it changes; None removes a field.
        data: Fields of the data section that it changes.
        facts: Further values that a table shows of it, by name.
        is_trained: Whether anything is trained; otherwise the untrained base predicts.
        head: Fields of the head section that it changes.
    """

    label: str
    method: Mapping[str, Any] | None = None
    train: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    is_trained: bool = True
    head: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variant:
    """A row of a comparison: the task with some fields changed.

    Attributes:
        label: Its name in tables.
        spec: The task.
        facts: Further values that a table shows of it, by name.
        is_trained: Whether anything is trained; otherwise the untrained base predicts.
        own_train: The fields of the train section that are its own, and not the file's.
        own_head: The same of the head section.
        other_settings: What else the command line set for all variants, by dotted name.
    """

    label: str
    spec: TaskSpec
    facts: Mapping[str, Any] = field(default_factory=dict)
    is_trained: bool = True
    own_train: tuple[str, ...] = ()
    own_head: tuple[str, ...] = ()
    other_settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """A method that is to be compared.

    Attributes:
        name: The method's.
        options: The options that were given for it.
        train: The fields of the train section that were given for it.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name, and what was given for it: ``lora r=16``."""
        given = [*self.options.items(), *self.train.items()]
        return " ".join([self.name, *(f"{key}={_shorten(value)}" for key, value in given)])


def parse_methods(text: str) -> tuple[list[MethodChoice], list[Fault]]:
    """Read a list of methods: ``full,lora:r=16;targets=[query,value],bitfit``.

    Methods are separated by commas, the options of one by semicolons. An option's value is YAML; a name that
    begins with ``train.`` is a field of the train section, for example ``full:train.learning_rate=3e-5``.

    Returns:
        The methods that could be read, and the faults of the others.
    """
    choices: list[MethodChoice] = []
    faults: list[Fault] = []
    for part in split_list(text, ","):
        choice, wrong = _parse_method(part)
        faults.extend(wrong)
        if choice in choices:
            faults.append(Fault(f"--methods {choice.label}", "is given twice"))
        elif not wrong:
            choices.append(choice)
    return choices, faults


def find_label(text: str | None, labels: Sequence[str]) -> tuple[str | None, list[Fault]]:
    """Return the label of the row that others are compared with, which may be written as in ``--methods``."""
    if text is None or text in labels:
        return text, []
    chosen, faults = parse_methods(text)
    if faults or len(chosen) != 1 or chosen[0].label not in labels:
        return None, [
            Fault(f"--against {text}", f"is not one of those that are compared: {', '.join(labels)}")
        ]
    return chosen[0].label, []


def refuse_settings(task: TaskDocument, reasons: Mapping[str, str]) -> list[Fault]:
    """Refuse settings of the command line that a comparison would replace by its own.

    Args:
        task: The task.
        reasons: What to do instead, by the name of the field.
    """
    return [
        Fault(f"--set {field}", "is what this compares", reason)
        for field, reason in reasons.items()
        if task.sets(field)
    ]


def draft_method(choice: MethodChoice, task: TaskDocument) -> Draft:
    """Lay a method over a task.

    The task's own method section applies to the method that it names. Another method gets its own defaults,
    including its learning rates: the file's were chosen for the file's method. What the command line sets
    applies to all, except to those that were given a value of their own.
    """
    own = task.method
    is_own = own.get("name") == choice.name
    section = {**(own if is_own else task.method_settings), "name": choice.name, **choice.options}
    train: dict[str, Any] = {}
    if choice.name == LINEAR_PROBE:
        # It has no training that the file could be about, but computes in its precision.
        given = task.content.get("train")
        train = {name: None for name in given if name != "precision"} if isinstance(given, Mapping) else {}
        section = {"name": choice.name, **choice.options}
        head = task.content.get("head")
        is_transformers = isinstance(head, Mapping) and head.get("pooling") == "transformers"
        return Draft(
            label=choice.label,
            method=section,
            train=train | dict(choice.train),
            # Transformers' head is not linear: the probe reads what the base states.
            head=dict.fromkeys((*_OF_TRAINED_HEADS, *(("pooling",) if is_transformers else ()))),
        )
    head = {}
    if not is_own and not task.sets("train.learning_rate"):
        train["learning_rate"] = None
    if not is_own and not task.sets("head.learning_rate"):
        head["learning_rate"] = None
    return Draft(label=choice.label, method=section, train=train | dict(choice.train), head=head)


def draft_probe(task: TaskDocument, choices: Sequence[MethodChoice]) -> Draft | None:
    """Return the linear probe of a task, to compare with; None: it is among the methods, or there is none.

    Args:
        task: The task.
        choices: The methods that are compared.
    """
    if any(choice.name == LINEAR_PROBE for choice in choices) or task.list_own_faults():
        return None
    draft = draft_method(MethodChoice(LINEAR_PROBE), task)
    spec, faults = _try_parse(task, _apply(task.content, draft))
    if spec is None or task.leave_out_own_faults(faults):
        return None
    return None if _check_base(spec, is_wanted=True) else draft


def build_variants(
    task: TaskDocument, drafts: Sequence[Draft], faults: Sequence[Fault] = ()
) -> list[Variant]:
    """Check the task and all drafts of it.

    Args:
        task: The task.
        drafts: The variants to compare.
        faults: Faults that are known already.

    Raises:
        BaseModelError: The base is not there.
        InvalidTaskError: The file has faults, or a method has with its options or on this base; all of them
            are listed.
    """
    listed = [*task.list_own_faults(), *faults, *_find_seeds(task, drafts)]
    variants: list[Variant] = []
    for draft in drafts:
        spec, wrong = _try_parse(task, _apply(task.content, draft))
        if spec is not None:
            variants.append(_make_variant(draft, spec, task))
            wrong = _check_base(spec, is_wanted=not listed)
        if not draft.is_trained:
            # Its method plays no part.
            wrong = [fault for fault in wrong if not fault.where.startswith("method")]
        # The faults of the file itself are listed once.
        listed += [
            _mark_settings(fault, task).move_into(draft.label) for fault in task.leave_out_own_faults(wrong)
        ]
    listed += [*_find_namesakes(drafts), *_find_twins(variants)]
    if listed:
        raise InvalidTaskError(str(task.path), list(dict.fromkeys(listed)), todo=_TODO)
    return variants


def _make_variant(draft: Draft, spec: TaskSpec, task: TaskDocument) -> Variant:
    return Variant(
        draft.label,
        spec,
        draft.facts,
        draft.is_trained,
        own_train=tuple(dict.fromkeys([*draft.train, *task.list_settings("train")])),
        # A draft takes fields of the head away at most.
        own_head=tuple(name for name in task.list_settings("head") if name not in draft.head),
        other_settings=tuple(task.list_settings_elsewhere()),
    )


def _mark_settings(fault: Fault, task: TaskDocument) -> Fault:
    if not task.sets_option(fault.where):
        return fault
    note = "(--set applies to all)"
    if fault.remedy:
        return replace(fault, remedy=f"{fault.remedy} {note}")
    return replace(fault, what=f"{fault.what} {note}")


def _parse_method(text: str) -> tuple[MethodChoice, list[Fault]]:
    name, _, given = text.partition(":")
    name = name.strip()
    options: dict[str, Any] = {}
    train: dict[str, Any] = {}
    faults: list[Fault] = []
    for part in split_list(given, ";") if given.strip() else ():
        key, separator, written = part.partition("=")
        key = key.strip()
        place = f"--methods {name}"
        if not separator or not key:
            faults.append(Fault(place, f"{part.strip()!r} is not of the form OPTION=VALUE"))
            continue
        try:
            value = parse_value(written)
        except ValueError:
            faults.append(Fault(place, f"{key}: {written!r} is not a YAML value"))
            continue
        (train if key.startswith(TRAIN) else options)[key.removeprefix(TRAIN)] = value
    if not name:
        faults.append(Fault("--methods", "a name is missing between two commas"))
    return MethodChoice(name, options, train), faults


def _find_option(field: str) -> str:
    """Return the option that a dotted name means, ``r`` for ``method.r`` and ``method.options.r``; or ""."""
    section, _, name = field.partition(".")
    return name.removeprefix("options.").partition(".")[0] if section == "method" else ""


def split_list(text: str, separator: str) -> Iterator[str]:
    """Split a text at a separator, but not inside brackets or quotes."""
    depth, quote, start = 0, "", 0
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
        elif letter == separator and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]


def _shorten(value: object) -> str:
    return str(value).translate(_LABEL_TABLE)


def _apply(content: Mapping[str, Any], draft: Draft) -> dict[str, Any]:
    changed = deepcopy(dict(content))
    if draft.method is not None:
        changed["method"] = deepcopy(dict(draft.method))
    for name, fields in (("train", draft.train), ("data", draft.data), ("head", draft.head)):
        section = changed.get(name)
        if not fields or not isinstance(section, dict | None):
            continue
        if section is None and name == "head":
            continue
        merged = {**(section or {}), **fields}
        changed[name] = {key: value for key, value in merged.items() if value is not None}
    return changed


def _try_parse(task: TaskDocument, content: Mapping[str, Any]) -> tuple[TaskSpec | None, list[Fault]]:
    try:
        return task.parse(content), []
    except InvalidTaskError as error:
        return None, list(error.faults)


def _check_base(spec: TaskSpec, *, is_wanted: bool) -> list[Fault]:
    """Return why a method does not fit the base or this installation.

    A base on a hub or on S3 is downloaded only if nothing else is wrong.
    """
    if not is_wanted and not spec.base.is_here:
        return []
    try:
        check_base(spec, find_base_folder(spec.base))
        find_method(spec).list_load_options()
        require_optimizer(spec.train.optimizer)
    except InvalidTaskError as error:
        return list(error.faults)
    except MissingExtraError as error:
        return [Fault(error.where, error.what, error.todo)]
    return []


def _find_seeds(task: TaskDocument, drafts: Sequence[Draft]) -> Iterator[Fault]:
    """Return where a seed is given that the study's own would replace."""
    places = [f"--set {_SEED}"] if task.sets(_SEED) else []
    places += [f"--methods {draft.label}: {_SEED}" for draft in drafts if "seed" in draft.train]
    for place in places:
        yield Fault(place, "is set by the study, so that all methods have the same seeds", "give --seeds")


def _find_namesakes(drafts: Sequence[Draft]) -> Iterator[Fault]:
    """Yield a fault for drafts with the same label, which a table could not distinguish."""
    for label, count in Counter(draft.label for draft in drafts).items():
        if count > 1:
            yield Fault(label, f"{count} variants would have this name", "name each once")


def _find_twins(variants: Sequence[Variant]) -> Iterator[Fault]:
    """Yield a fault for variants that differ in name only.

    Prompts that a method reads alike are no fault: their rows share the result.
    """
    seen: dict[tuple[bool, int | None, str], str] = {}
    for variant in variants:
        key = (variant.is_trained, variant.facts.get("wording"), variant.spec.recipe_digest)
        known = seen.setdefault(key, variant.label)
        if known != variant.label:
            yield Fault(variant.label, f"is the same recipe as {known}")
