"""The manifest of an adapter: one immutable document whose digest is the adapter's id.

The manifest holds no time, and no path except that of a base which is a folder, from where it is loaded
again. The same training on the same base gives the same adapter id: so it names its task, but neither the
registry, between which adapters may move, nor the run, of which
:mod:`lorry_registry.records.provenance` tells.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from lorry_registry.errors import AdapterRejectedError
from lorry_registry.files.digests import canonical_json, digest_bytes

MANIFEST_NAME = "manifest.json"
CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
CARD_NAME = "README.md"
ADAPTER_FILES = (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME)

FORMAT = 1
"""The format of a store's documents: what they hold is written down in docs/format.md."""
FormatNumber = Annotated[int, Field(ge=FORMAT, le=FORMAT)]

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
# The metric that is of one class.
_CLASS_METRIC = "f1"
_FILE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class _Part(BaseModel):
    # JSON has no NaN, so a manifest that held one would have no canonical form and no id.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class FileEntry(_Part):
    """One file of an adapter."""

    name: str
    size: Annotated[int, Field(ge=0)]
    sha256: Digest

    @field_validator("name")
    @classmethod
    def _confine(cls, name: str) -> str:
        if not _FILE_NAME.fullmatch(name):
            raise ValueError("is not a plain file name")
        return name


class BaseIdentity(_Part):
    """Which base an adapter was trained on, and must be loaded on."""

    model: str
    revision: str | None
    fingerprint: Digest
    architecture: str


class ResolvedRecipe(_Part):
    """What an adapter was made of beside base, data and the recipe as its task has it.

    Attributes:
        digest: Of the whole: the recipe with every default written out, and the versions of the code.
        defaults: The fields that the task left to a default, with the values that they had then; by dotted
            name, as in the recipe.
        code: The versions of the code that decides the result, such as ``step.finetune`` and ``method.lora``.
        start: The adapter that training went on from; None: it began with the base alone.
    """

    digest: Digest
    defaults: dict[str, JsonValue]
    code: dict[str, int]
    start: Digest | None


class TrainingInputs(_Part):
    """The digests of everything that decided the result.

    Attributes:
        source_digest: Of the data as they are in their source.
        data_digest: Of the three prepared parts.
        recipe_digest: Of all that decides what is learned, but for base and data.
        fingerprints_digest: Of its rows' fingerprints (:mod:`~lorry_registry.records.row_fingerprints`)
            beside it in the store; None: there are none.
        makeup: What else decided it.
    """

    source_digest: Digest
    data_digest: Digest
    recipe_digest: Digest
    fingerprints_digest: Digest | None
    makeup: ResolvedRecipe


class ParameterCounts(_Part):
    """How many parameters the adapter and the task's head have, all of them trained, and the whole model."""

    adapter: int
    head: int
    total: int

    @property
    def trained(self) -> int:
        """All trained parameters, the head with them."""
        return self.adapter + self.head


class Pooling(_Part):
    """What a head of Lorry's own reads of a base's last states.

    Attributes:
        place: The state of the first or the last token, or the mean of all.
        normalizes: Whether the vector is scaled to the length of one whose numbers are 1.
    """

    place: Literal["first", "mean", "last"]
    normalizes: bool = False


class MetricValue(_Part):
    """A metric on the test rows; ``low`` and ``high`` bound its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Baseline(_Part):
    """A trivial baseline on the rows that an adapter was evaluated on.

    Attributes:
        name: What answers, such as ``majority class``.
        value: Its primary metric on these rows.
        gain: The adapter's value on the same rows less this one.
        confidence: How sure it is that the adapter is better, from 0 to 1.
        examples: How many of the rows it answered.
    """

    name: str
    value: float
    gain: float
    confidence: float
    examples: int


class ProbeComparison(_Part):
    """An adapter beside a linear model on the frozen base, by the primary metric on the same test rows.

    Attributes:
        value: The linear model's.
        gain: The adapter's less the linear model's; ``low`` and ``high`` bound its 95 % interval.
    """

    value: float
    gain: float
    low: float
    high: float


class Evaluation(_Part):
    """How good the adapter is on the rows that were held out.

    Attributes:
        split: The part of the data that the rows are.
        examples: How many there are.
        primary: The name of the metric that the gate decides by.
        metrics: All metrics, by name.
        positive: The class whose F1 ``f1`` is; None: it is that of no single class.
        baselines: Trivial baselines, on the same rows.
        linear_probe: The linear probe on the same rows; None: it was not compared.
    """

    split: str
    examples: int
    primary: str
    metrics: dict[str, MetricValue]
    baselines: tuple[Baseline, ...] = ()
    positive: str | None = None
    linear_probe: ProbeComparison | None = None

    @model_validator(mode="after")
    def _check_primary(self) -> Self:
        if self.primary not in self.metrics:
            raise ValueError(f"the primary metric {self.primary!r} is not among the metrics")
        return self

    @property
    def headline(self) -> MetricValue:
        """The primary metric."""
        return self.metrics[self.primary]

    @property
    def best_baseline(self) -> Baseline | None:
        """The baseline with the highest value; None: there is none."""
        return max(self.baselines, key=lambda baseline: baseline.value, default=None)

    def list_metrics(self) -> list[tuple[str, MetricValue]]:
        """Return all metrics by name, the primary one first."""
        return sorted(self.metrics.items(), key=lambda item: (item[0] != self.primary, item[0]))

    def name_metric(self, name: str) -> str:
        """Return what a person reads for a metric: its name, and of F1 the class whose it is."""
        return f"{name} of {self.positive}" if name == _CLASS_METRIC and self.positive is not None else name


class Probe(_Part):
    """Inputs, and the outputs recorded for them when the adapter was registered.

    Attributes:
        rows: Input rows: text, or text and text_pair.
        outputs: The raw model outputs, a list of numbers a row.
        base_outputs: The same with the adapter's change to the base switched off.
    """

    rows: tuple[dict[str, str], ...]
    outputs: tuple[tuple[float, ...], ...]
    base_outputs: tuple[tuple[float, ...], ...]


class Manifest(_Part):
    """The identity card of one adapter.

    ``head`` is what a head of Lorry's own reads; None: the head is that of transformers' class.
    """

    format: FormatNumber = FORMAT
    task: str
    kind: str
    owner: str = ""
    description: str = ""
    base: BaseIdentity
    method: str
    recipe: dict[str, JsonValue]
    inputs: TrainingInputs
    labels: tuple[str, ...] | None
    parameters: ParameterCounts
    evaluation: Evaluation
    probe: Probe
    libraries: dict[str, str]
    files: tuple[FileEntry, ...]
    head: Pooling | None = None

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> Self:
        """Read a manifest.

        Raises:
            AdapterRejectedError: It is not a manifest in a format that this version knows.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise AdapterRejectedError(
                f"not a manifest that this version of lorry can read: {field} {first['msg']}",
                where=where,
                todo="pull the adapter again, or upgrade lorry",
            ) from error

    def serialize(self) -> bytes:
        """Return the canonical bytes, those that are stored and hashed."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def adapter_id(self) -> str:
        """``sha256:<hex>`` of the canonical bytes."""
        return digest_bytes(self.serialize())

    @property
    def size_bytes(self) -> int:
        """The size of all files except the manifest, in bytes."""
        return sum(entry.size for entry in self.files)
