"""The task file, section by section, as frozen models that refuse unknown fields.

What a method's options mean is not known here: :meth:`MethodSpec.read_options` is given the method's reader.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    Field,
    JsonValue,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from lorry_registry.files.digests import digest_document
from lorry_registry.tasks.input_specs import BaseSpec, DataSpec
from lorry_registry.tasks.task_section import Section, Share

MEMORY_QUANTITY = r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"
TASK_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"

_Result = TypeVar("_Result")


class MethodSpec(Section):
    """How the base is adapted: the method's name, and its options beside it.

    Attributes:
        name: The name of a method, for example ``lora``.
        options: All other keys of the section, which the method validates.
        max_adapter_mib: The size, in MiB, above which an adapter is refused; None: the method's own limit.
    """

    name: str
    options: dict[str, JsonValue] = {}
    max_adapter_mib: Annotated[float, Field(gt=0)] | None = None
    # The reader, the options that it was given, and its result.
    _last_read: tuple[object, object, Any] | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, section: Any) -> Any:
        return gather_options(section) if isinstance(section, dict) else section

    def read_options(self, reader: Callable[[Mapping[str, JsonValue]], _Result]) -> _Result:
        """Return what the method's reader makes of the options.

        The result is kept: another call with the same reader gets the same object, and the options are
        validated once, however many parts of the program need them.
        """
        last = self._last_read
        # A copy of this section may have got other options.
        if last is None or last[0] != reader or last[1] is not self.options:
            last = (reader, self.options, reader(self.options))
            self._last_read = last
        result: _Result = last[2]
        return result

    def __eq__(self, other: object) -> bool:
        # What was read of the options does not make two sections differ.
        return isinstance(other, MethodSpec) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash((self.name, self.max_adapter_mib))

    def __getstate__(self) -> dict[Any, Any]:
        # Nor does it travel to other processes, which may not have the reader's package.
        return super().__getstate__() | {"__pydantic_private__": {"_last_read": None}}


def gather_options(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method section with the options below ``options``, wherever the document has them."""
    if "options" in section:
        return dict(section)
    own = {"name", "max_adapter_mib"}
    gathered = {key: value for key, value in section.items() if key not in own}
    return {key: value for key, value in section.items() if key in own} | {"options": gathered}


class EarlyStopping(Section):
    """When training stops before its end.

    Attributes:
        patience: The epochs without a rise of the primary metric on validation after which it stops.
    """

    patience: Annotated[int, Field(ge=1)] = 2


class TrainSpec(Section):
    """How the adapter is trained.

    Attributes:
        epochs: Passes over the training rows. Give these, or steps, or neither: three epochs then, and where
            these would be few steps, more and smaller ones.
        steps: Optimizer steps.
        batch_size: Examples in one forward pass; the largest number of them, where the length is left open.
        gradient_accumulation: Forward passes in one optimizer step.
        learning_rate: The peak learning rate; None: the method's default.
        schedule: How the learning rate falls after the warmup.
        warmup: The share of the steps in which the learning rate rises.
        weight_decay: AdamW's decoupled weight decay.
        max_grad_norm: Gradients are clipped to this norm.
        hidden_dropout: Dropout of the hidden layers; None: that of the base's configuration. Refused if the
            base's family has none, as Llama. T5 has one dropout for both, which is this.
        attention_dropout: Dropout of attention weights. Above 0, attention cannot use its fast kernels.
        packing: Whether the sequences of a batch are concatenated without padding and without attending to
            each other, for causal models of families where this was verified.
        gradient_checkpointing: Whether layers are recomputed in the backward pass instead of keeping their
            activations: a third slower, with much less memory.
        offload: Whether the frozen weights stay in the host's memory, divided among the processes that train,
            and are copied to the GPU block by block.
        cache_frozen_layers: Whether the outputs of the layers below the first trained one are computed once
            and kept on disk during training; these layers have no dropout then.
        seed: The seed of the order of examples, of new weights and of dropout.
        early_stopping: When to stop before the end; None: never. If it is given, the best epoch is kept.
        precision: The number format; ``auto``: the one in which the hardware is fastest.
        optimizer: AdamW, or AdamW with moments of 8 bits, except for embeddings and small tensors
            (``pip install 'lorry[quantization]'``).
        start: What training begins with: ``base``, or the ``champion``'s adapter, if there is one of the same
            base, method, shape and labels.
    """

    epochs: Annotated[float, Field(gt=0, le=10_000)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    gradient_accumulation: Annotated[int, Field(ge=1)] = 1
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = None
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    hidden_dropout: Share | None = None
    attention_dropout: Share = 0.0
    packing: bool = False
    gradient_checkpointing: bool = False
    offload: bool = False
    cache_frozen_layers: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    early_stopping: EarlyStopping | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"
    start: Literal["base", "champion"] = "base"

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give 'epochs' or 'steps', not both")
        return self


class Reference(Section):
    """A published figure, shown beside the measured one.

    Attributes:
        value: The figure, in the primary metric.
        source: Who published it, and where.
    """

    value: float
    source: str


DRAWING_FIELDS = ("steps", "guidance", "seed")
"""The fields of :class:`GenerateSpec` that are for drawing images; the others are for texts."""


class GenerateSpec(Section):
    """How a text is searched for, or how an image is drawn.

    Attributes:
        beams: Beams of the search; 1: the most likely token at each step.
        length_penalty: Above 0, beams prefer longer texts, below 0 shorter ones.
        no_repeat_ngram: The length of token sequences that may not occur twice; 0: no such limit.
        chat: Whether the template becomes a message to the base's chat template; auto: if the base has one.
        steps: Steps from noise to an image.
        guidance: How strongly the prompt guides an image away from one drawn without it; 1: not at all.
        seed: The seed of the noise that images are drawn from.
    """

    beams: Annotated[int, Field(ge=1, le=64)] = 1
    length_penalty: Annotated[float, Field(ge=-10, le=10)] = 1.0
    no_repeat_ngram: Annotated[int, Field(ge=0, le=100)] = 0
    chat: Literal["auto", "always", "never"] = "auto"
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    guidance: Annotated[float, Field(ge=1, le=100)] = 7.5
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_serializer(mode="wrap")
    def _leave_out_drawing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes of tasks without images do not change by fields that are for images.
        fields = type(self).model_fields
        return {
            name: value
            for name, value in handler(self).items()
            if name not in DRAWING_FIELDS or value != fields[name].default
        }


class EvaluateSpec(Section):
    """How the adapter is scored on the test rows.

    Attributes:
        metrics: Names of metrics of the task type; empty: all but its optional ones.
        primary: The metric that the gate decides by; None: that of the task type.
        positive: The class whose F1 is computed; None: of two classes the one that the other negates, or else
            the second in alphabetical order, and of more than two the mean over all.
        resamples: Bootstrap resamples for the confidence interval.
        reference: A published figure to show beside the measured one.
        linear_probe: Whether a linear model on the frozen base is fitted to compare the adapter with, for
            task types with a head on whole texts; ``auto``: unless there are very many training rows.
    """

    metrics: tuple[str, ...] = ()
    primary: str | None = None
    positive: Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)] | None = None
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    reference: Reference | None = None
    linear_probe: Literal["auto", "always", "never"] = "auto"


class HeadSpec(Section):
    """The head of a task about whole texts: what it reads of the base, and how it begins.

    Attributes:
        pooling: Which of the base's last states it reads: that of the first or the last token, or the mean of
            all; ``auto``: what the base says of itself, or else what transformers' head for its family reads;
            ``transformers``: it is that head, with the layers that it has of its own.
        init: What its weights are before training: ``random``, or those of a linear model that was fitted to
            the frozen base's states (Kumar et al. 2022, https://arxiv.org/abs/2202.10054).
        dropout: Dropout before the output layer; None: none, or what the base's own head has.
        learning_rate: Its peak learning rate; None: that of the adapter, but no high one for a head that was
            fitted first.
    """

    pooling: Literal["auto", "first", "mean", "last", "transformers"] = "auto"
    init: Literal["probe", "random"] = "random"
    dropout: Share | None = None
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = None


class GateSpec(Section):
    """What an adapter must achieve to become the champion.

    Attributes:
        minimum: The lowest value of the primary metric; None: any.
        minimum_gain: The least gain over the champion, on the same test rows.
        confidence: How sure it must be that there is a gain, by a one-sided paired test. Of adapters that are
            no better than the champion, at most the rest of 1 is promoted over it on the same test rows,
            however many try.
        minimum_rows: The fewest test rows on which an adapter can win against the champion.
        baseline: What an adapter must beat even where there is no champion: the best trivial baseline, such
            as the most frequent label, or ``none``.
    """

    minimum: float | None = None
    minimum_gain: Annotated[float, Field(ge=0)] = 0.0
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95
    minimum_rows: Annotated[int, Field(ge=1)] = 30
    baseline: Literal["trivial", "none"] = "trivial"


class Toleration(Section):
    """A Kubernetes toleration.

    Attributes:
        key: The taint's key; None: any.
        operator: How the taint's value is compared.
        value: The taint's value.
        effect: The taint's effect; None: any.
    """

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class ResourcesSpec(Section):
    """Where the fine-tuning step of this task runs on a cluster.

    Attributes:
        accelerator: The resource name of the accelerator.
        count: How many accelerators each node has for it, with a process for each, which divide each batch;
            0: the step runs on processors.
        nodes: How many nodes train together, by Kubeflow Trainer if there are several. On this machine it is
            trained on one.
        memory: The memory of the container on each node, in Kubernetes' notation.
        node_selector: Labels that the node must have.
        tolerations: Taints that the step tolerates.
    """

    accelerator: str = "nvidia.com/gpu"
    count: Annotated[int, Field(ge=0, le=64)] = 0
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    memory: Annotated[str, Field(pattern=MEMORY_QUANTITY)] = "4Gi"
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()

    @property
    def processes(self) -> int:
        """How many processes train together: one for each accelerator, or for each node without any."""
        return max(1, self.count) * self.nodes


class RetrainSpec(Section):
    """What makes an adapter out of date beside its data, base, recipe and the code that trains it.

    Attributes:
        on: ``libraries``: other versions of the libraries that it was trained with, as they are installed
            where it is looked at.
    """

    on: tuple[Literal["libraries"], ...] = ()


class DriftSpec(Section):
    """When new inputs are so unlike the training rows that a task is stale.

    Attributes:
        confidence: How sure a shift must be. Of inputs that are like the training rows, a share of at most
            one less this is taken for others.
        rows: How many rows of each are compared at most: the more, the smaller the shifts that are found.
    """

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.99
    rows: Annotated[int, Field(ge=20, le=5000)] = 500


class TaskSpec(Section):
    """One downstream task: what is learned, from which data, on which base, how, and how good it must be.

    Attributes:
        name: The task's name: lower-case letters, digits, ``-`` and ``_``.
        kind: The task type.
        base: The frozen base model.
        data: What it is learned from.
        method: How the base is adapted.
        head: What reads the base's states, for classes and numbers; None: it follows from the base and the
            rows.
        train: How the adapter is trained.
        generate: How texts are searched for, or images drawn.
        evaluate: How the adapter is scored.
        gate: What it must achieve to become the champion.
        resources: Where fine-tuning runs on a cluster.
        retrain: What else makes it out of date.
        drift: When new inputs are unlike the training rows; None: with the defaults.
        owner: Shown in the registry and in MLflow.
        description: Shown in the registry and in MLflow.
    """

    name: str = Field(pattern=TASK_NAME)
    kind: str
    base: BaseSpec
    data: DataSpec
    method: MethodSpec
    head: HeadSpec | None = None
    train: TrainSpec = TrainSpec()
    generate: GenerateSpec = GenerateSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    gate: GateSpec = GateSpec()
    resources: ResourcesSpec = ResourcesSpec()
    retrain: RetrainSpec | None = None
    drift: DriftSpec | None = None
    owner: str = ""
    description: str = ""

    @field_validator("name")
    @classmethod
    def _refuse_reserved_names(cls, name: str) -> str:
        if name == "latest" or re.fullmatch(r"v\d+", name):
            raise ValueError("is reserved by MLflow")
        return name

    def describe_recipe(self) -> dict[str, JsonValue]:
        """Return everything that decides what is learned, except the base and the rows themselves."""
        recipe: dict[str, JsonValue] = {
            "kind": self.kind,
            "data": self.data.model_dump(mode="json", exclude={"source", "revision", "format"}),
            "method": self.method.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
            "generate": self.generate.model_dump(mode="json"),
            "head": None if self.head is None else self.head.model_dump(mode="json"),
        }
        if self.train.early_stopping is not None:
            # It decides which epoch is kept.
            recipe["primary"] = self.evaluate.primary
            if self.evaluate.positive is not None:
                recipe["positive"] = self.evaluate.positive
        return recipe

    @property
    def recipe_digest(self) -> str:
        """The digest of the recipe: adapters with the same digest were trained in the same way."""
        return digest_document(self.describe_recipe())
