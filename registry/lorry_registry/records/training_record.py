"""Records of a training beside the manifest: the card of its data, and the course of the training.

The manifest holds neither, since the same training gives the same adapter id under any name of its data
and however long it took. The event that registers a version names the card's digest and holds the figures;
the card itself lies in the store beside the adapter.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from lorry_registry.errors import AdapterRejectedError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.ledger.events import Event
from lorry_registry.manifest import Manifest
from lorry_registry.records.adapter_names import label_method
from lorry_registry.records.sidecars import read_sidecar, sidecar_key, store_sidecar
from lorry_registry.stores import Store

# Keys in an event's details.
CARD_DETAIL = "data_card"
TRAINING_DETAIL = "training"

ONLY_HEAD = "Only a fitted head"
"""What reports call the reason why nothing of an adapter was kept but its head."""

_FOLDER = "data-card"
_MAX_BYTES = 16 << 20
_TODO = "restore it from a backup; the adapter itself is judged by its own files"
_PARTS = {"train": "to train on", "validation": "to validate", "test": "to test"}

Count = Annotated[int, Field(ge=0)]


class _Document(BaseModel):
    # The card that is stored holds more than is shown beside an adapter.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Part(_Document):
    rows: Count


class DataFacts(_Document):
    """What a data card says, as far as it is shown beside an adapter.

    Attributes:
        source: The name of the file or folder, or an address without secrets.
        revision: The revision of a hub data set.
        splits: The parts, ``train``, ``validation`` and ``test``, with their rows.
        dropped: Reason -> rows left out for it.
        warnings: What to know before trusting a score, a sentence each.
    """

    source: str
    revision: str | None
    splits: dict[str, _Part]
    dropped: dict[str, Count]
    warnings: tuple[str, ...]


class TrainingFacts(_Document):
    """How a training went.

    Attributes:
        learning_rate: The peak learning rate; 0 if there was none.
        steps: Optimizer steps; 0: it was fitted without any.
        examples: Training rows.
        seconds: How long it took, in the process that ended it.
        device: What it was trained on.
        precision: The number format of frozen weights and matrix products.
        batch_size: Rows in one forward pass; None: it had no steps.
        options: Every option of the method, also those that the task file left to their defaults.
        kept_start: Why nothing was kept but a fitted head; empty: more was.
    """

    learning_rate: Annotated[float, Field(ge=0)]
    steps: Count
    examples: Count
    seconds: Annotated[float, Field(ge=0)]
    device: str
    precision: str
    batch_size: Count | None
    options: dict[str, JsonValue]
    kept_start: str


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What is known of a training beside its manifest.

    Attributes:
        data: What its data card says; None: it was registered by hand, without one, or it cannot be read.
        facts: How it went; None: it was registered by hand.
        problem: Why the card cannot be read, if so.
    """

    data: DataFacts | None = None
    facts: TrainingFacts | None = None
    problem: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know of the data before trusting a score."""
        return self.data.warnings if self.data is not None else ()

    def label_method(self, recipe: Mapping[str, Any]) -> str:
        """Return the method with what sets its size, whether the recipe names that or left it to defaults."""
        method = recipe.get("method")
        if self.facts is None or not self.facts.options or not isinstance(method, Mapping):
            return label_method(recipe)
        return label_method({"method": {**method, "options": self.facts.options}})


def store_card(store: Store, manifest: Manifest, content: bytes) -> str:
    """Put the data card of an adapter beside it; return its digest, which the event is to name.

    Raises:
        StoreError: The store cannot be written.
    """
    digest = digest_bytes(content)
    store_sidecar(store, _find_key(manifest, digest), content)
    return digest


def read_card(store: Store, manifest: Manifest, registered: Event) -> DataFacts | None:
    """Return what the data card of a version says; None: it was registered without one.

    Args:
        store: The store.
        manifest: The adapter's manifest.
        registered: The event that registered the version.

    Raises:
        AdapterRejectedError: The card is missing, was changed, or is none.
        StoreError: The store cannot be read.
    """
    digest = registered.details.get(CARD_DETAIL)
    if not isinstance(digest, str):
        return None
    key = _find_key(manifest, digest)
    content = read_sidecar(store, key, digest, name="its data card", todo=_TODO)
    return parse_card(content, where=store.locate(key))


def parse_card(content: bytes, *, where: str) -> DataFacts:
    """Read a data card.

    Raises:
        AdapterRejectedError: It is none.
    """
    try:
        if len(content) > _MAX_BYTES:
            raise ValueError("it is too large")
        return DataFacts.model_validate(json.loads(content))
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))} {first['msg']}"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise AdapterRejectedError(f"its data card cannot be read: {reason}", where=where, todo=_TODO)


def read_record(store: Store, manifest: Manifest, registered: Event) -> TrainingRecord:
    """Return what is known of the training of a version; a damaged card is reported in it, without an error.

    Raises:
        StoreError: The store cannot be read.
    """
    facts = _read_facts(registered)
    try:
        return TrainingRecord(read_card(store, manifest, registered), facts)
    except AdapterRejectedError as error:
        return TrainingRecord(None, facts, error.what)


def _find_key(manifest: Manifest, digest: str) -> str:
    return sidecar_key(manifest.adapter_id, _FOLDER, digest)


def _read_facts(registered: Event) -> TrainingFacts | None:
    try:
        return TrainingFacts.model_validate(registered.details.get(TRAINING_DETAIL))
    except ValidationError:
        return None


def describe_training(manifest: Manifest, record: TrainingRecord) -> dict[str, str]:
    """Return how an adapter was trained: name -> words; what is not known is left out."""
    train = manifest.recipe.get("train")
    recipe = train if isinstance(train, Mapping) else {}
    lines = {
        "Data": _describe_data(record),
        "Rows": _describe_rows(record),
        "Method": _describe_method(manifest, record),
        "Course": _describe_course(recipe, record.facts),
        ONLY_HEAD: record.facts.kept_start if record.facts else "",
        "Learning rate": _describe_rate(recipe, record.facts),
        "Seed": str(recipe["seed"]) if "seed" in recipe else "",
        "Took": _describe_time(record.facts),
    }
    return {name: text for name, text in lines.items() if text}


def _describe_data(record: TrainingRecord) -> str:
    if record.data is None:
        return record.problem
    revision = record.data.revision
    return f"{record.data.source}, revision {revision}" if revision else record.data.source


def _describe_rows(record: TrainingRecord) -> str:
    if record.data is None:
        return f"{record.facts.examples:,} {_PARTS['train']}" if record.facts is not None else ""
    parts = [
        f"{record.data.splits[name].rows:,} {purpose}"
        for name, purpose in _PARTS.items()
        if name in record.data.splits
    ]
    dropped = [f"{count:,} left out ({reason})" for reason, count in record.data.dropped.items() if count]
    return ", ".join([*parts, *dropped])


def _describe_method(manifest: Manifest, record: TrainingRecord) -> str:
    """Return the method with what sets its size, and the options that its task file sets."""
    method = manifest.recipe.get("method")
    options = method.get("options") if isinstance(method, Mapping) else None
    label = record.label_method(manifest.recipe) or manifest.method
    if not isinstance(options, Mapping):
        return label
    shown = label.split()
    further = [
        f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in options.items()
        if value is not None and name != "type"
    ]
    return " ".join([label, *(option for option in further if option not in shown)])


def _describe_course(recipe: Mapping[str, object], facts: TrainingFacts | None) -> str:
    if facts is not None and not facts.steps:
        return "fitted to all rows at once, without steps"
    size, accumulation = recipe.get("batch_size"), recipe.get("gradient_accumulation")
    if facts is not None and facts.batch_size is not None:
        # Of few rows it may be smaller than the task's.
        size = facts.batch_size
    epochs = recipe.get("epochs")
    length = f"{epochs:g} epoch{'' if epochs == 1 else 's'}" if isinstance(epochs, int | float) else ""
    steps = facts.steps if facts is not None else recipe.get("steps")
    counted = f"{steps:,} step{'' if steps == 1 else 's'}" if isinstance(steps, int) else ""
    batch = f"batches of {size}" if size else ""
    if batch and isinstance(accumulation, int) and accumulation > 1:
        batch += f", {accumulation} of them a step"
    return ", ".join(filter(None, (length, counted, batch)))


def _describe_rate(recipe: Mapping[str, object], facts: TrainingFacts | None) -> str:
    if facts is not None and not facts.steps:
        return ""
    given = recipe.get("learning_rate")
    rate = facts.learning_rate if facts is not None else given
    shown = f"{rate:g}" if isinstance(rate, int | float) else ""
    own = "" if given is not None else "the method's own"
    warmup = recipe.get("warmup")
    rising = f"warm-up {warmup:.0%}" if isinstance(warmup, int | float) and warmup else ""
    return ", ".join(filter(None, (shown, own, str(recipe.get("schedule") or ""), rising)))


def _describe_time(facts: TrainingFacts | None) -> str:
    return f"{facts.seconds:,.0f} s on {facts.device} in {facts.precision}" if facts is not None else ""
