"""The interface of a task type."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lorry_components.task_types.input_form import InputForm
from lorry_registry.errors import Fault
from lorry_registry.task_document import suggest_name
from lorry_registry.task_sections import TaskSections
from lorry_registry.task_spec import DRAWING_FIELDS, DataSpec, EvaluateSpec, GenerateSpec

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

Label = str | float
"""What a row of the data says is right: a class, a number, or a text."""

Target = Label | tuple[Label, ...]
"""What a prediction is compared with: a label, or all the labels that are right for the same input."""

Row = Mapping[str, str]
Prediction = dict[str, Any]
Features = dict[str, Any]
LabelForm = Literal["class", "number", "text"]
Report = Callable[[int], None]
Outputs = NDArray[np.float32]

Scorer = Callable[[NDArray[np.intp]], float]
"""Returns the value of a metric on some rows, given by their numbers: a bootstrap draws many such sets."""

Metric = Callable[[Sequence[Target], Sequence[Prediction]], Scorer]
"""Looks once at all targets and predictions, so that scoring a set of rows costs little."""

IMAGE = "image"
"""The field of a row that holds an image: the bytes of its file, in base64."""

IGNORED = -100
"""The label of a position on which no loss is computed: PyTorch's cross-entropy leaves it out."""


def list_right(target: Target) -> tuple[Label, ...]:
    """Return all labels that are right for an input, one or more."""
    return target if isinstance(target, tuple) else (target,)


def gather_targets(rows: Sequence[Row], targets: Sequence[Label]) -> list[tuple[Row, list[Label]]]:
    """Return each input once, with the labels of all its rows, in the order in which it first comes."""
    gathered: dict[tuple[str, ...], tuple[Row, list[Label]]] = {}
    for row, target in zip(rows, targets, strict=True):
        gathered.setdefault(tuple(row.values()), (row, []))[1].append(target)
    return list(gathered.values())


def batch_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Return the numbers of all rows in batches of like length, so that little is computed on padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + size] for start in range(0, len(order), size)]


class TaskType(ABC):
    """How one task type is read, encoded, modelled, scored and shown.

    A kind's only state is the form of its inputs; what depends on the data comes in as ``labels``, the
    classes of a classification in a fixed order, or None.

    Args:
        form: How rows become the model's inputs.

    Attributes:
        name: Its name in task files.
        summary: What it predicts, in a few words.
        model_class: The class of transformers' that puts the kind's head on a base.
        metrics: Its metrics, by name.
        primary: The metric that the gate looks at when a task names none.
        label_form: What its labels are: classes known from the data, numbers, or any text.
        answer_tokens: Of how many positions the output is needed in training, when the base reads from left
            to right; None: of all.
        error_metrics: The metrics of which less is better; none of them can be the primary one.
        optional_metrics: The metrics that are computed only when a task names them.
        averages_tokens: Whether its loss is a mean over supervised tokens, whose number varies by batch.
        predicts_next: Whether its labels are those of a causal language model: one for each position, which
            the position before it has to predict.
        peft_task_type: PEFT's name for this kind of model, by which it feeds soft tokens; None: it has
            none.
        target_names: The features that the loss is computed against.
        reads_context: Whether the second text is a context that rows ask about: each row needs one, and
            rows that share it stay on one side when a table is divided.
        reads_images: Whether a row's label is the name of an image file beside the table, its base is a
            pipeline of several models, and a prediction is an image.
        libraries: The libraries that it computes with, beside those of all kinds.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    model_class: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    primary: ClassVar[str]
    label_form: ClassVar[LabelForm]
    peft_task_type: ClassVar[str | None]
    answer_tokens: ClassVar[int | None] = None
    error_metrics: ClassVar[frozenset[str]] = frozenset()
    target_names: ClassVar[tuple[str, ...]] = ("labels",)
    reads_context: ClassVar[bool] = False
    optional_metrics: ClassVar[frozenset[str]] = frozenset()
    averages_tokens: ClassVar[bool] = False
    predicts_next: ClassVar[bool] = False
    reads_images: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ()

    def __init__(self, form: InputForm) -> None:
        self.form = form

    # The task file

    @classmethod
    def check_sections(cls, sections: TaskSections) -> Iterator[Fault]:
        """Return the fields of a task file that do not suit this task type."""
        if sections.data is not None:
            yield from cls.check_data(sections.data)
        if sections.generate is not None:
            yield from cls.check_generate(sections.generate)
        if sections.evaluate is not None:
            yield from cls.check_evaluate(sections.evaluate)

    @classmethod
    def check_data(cls, data: DataSpec) -> Iterator[Fault]:
        """Check the columns and the template."""
        has_pair = data.columns.text_pair is not None
        if cls.reads_context and not has_pair:
            yield Fault("data.columns.text_pair", f"is missing: {cls.name} needs the column of the context")
        yield from cls.check_template(data.template, has_pair=has_pair)

    @classmethod
    def check_template(cls, template: str | None, *, has_pair: bool) -> Iterator[Fault]:  # noqa: ARG003
        """Check the task's own template, ``data.template``."""
        if template is not None:
            yield Fault("data.template", f"{cls.name} reads its texts as they are", "leave it out")

    @classmethod
    def check_soft_template(
        cls,
        soft_template: str,  # noqa: ARG003
        template: str | None,  # noqa: ARG003
        *,
        has_pair: bool,  # noqa: ARG003
    ) -> Iterator[Fault]:
        """Check a method's template with soft tokens, ``method.template``, also against the task's own.

        It is valid for :func:`~lorry_components.data.templates.parse_template`.
        """
        yield Fault(
            "method.template",
            f"{cls.name} has no places for soft tokens inside its inputs",
            "write tokens: 20 instead",
        )

    @classmethod
    def check_generate(cls, generate: GenerateSpec) -> Iterator[Fault]:
        """Check that no field is for images."""
        for name in DRAWING_FIELDS:
            if name in generate.model_fields_set:
                yield Fault(f"generate.{name}", f"is for images, and not for {cls.name}", "leave it out")

    @classmethod
    def check_evaluate(cls, evaluate: EvaluateSpec) -> Iterator[Fault]:
        """Check that the task type has the metrics, and that more is better of the primary one."""
        primary = evaluate.primary
        for field, names in {
            "metrics": evaluate.metrics,
            "primary": () if primary is None else (primary,),
        }.items():
            for name in names:
                if name not in cls.metrics:
                    yield Fault(
                        f"evaluate.{field}",
                        f"{cls.name} has no metric {name!r}",
                        suggest_name(name, cls.metrics),
                    )
        if primary in cls.error_metrics:
            yield Fault("evaluate.primary", f"of {primary!r} less is better", f"choose {cls.primary!r}")

    @classmethod
    def check_method(cls, name: str) -> Iterator[Fault]:  # noqa: ARG003
        """Check that the task type works with a method, given by its name."""
        yield from ()

    # The data

    @classmethod
    def find_model_class(cls, config: "PretrainedConfig") -> str:  # noqa: ARG003
        """Return the class of transformers' that puts the kind's head on a base of this configuration."""
        return cls.model_class

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Say why this task type does not work on a base, from its configuration."""
        yield from ()

    def check_packing(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Say why sequences cannot be packed behind one another, if they cannot."""
        yield Fault(
            "train.packing", f"is for causal language models, and not for {self.name}", "leave it out"
        )

    def check_folder(self, folder: "Path") -> Iterator[Fault]:
        """Say what this task type misses in a base's folder, its weights and its tokeniser unread."""
        yield from ()

    @abstractmethod
    def parse_label(self, raw: object) -> Label:
        """Turn a cell of the label column into a label.

        Raises:
            ValueError: It is not a label of this kind; the message says why.
        """

    def find_fault(self, row: Row, label: Label) -> str:
        """Say what is wrong between an input and its label, or nothing."""
        return ""

    def spell_label(self, label: Label) -> str:
        """Return the words of a label, whose number the data card tells."""
        return str(label)

    def check_rows(self, reader: Any, rows: Sequence[Row]) -> None:  # noqa: B027
        """Refuse inputs that do not fit the base, such as too long texts, before anything is trained.

        Raises:
            InvalidDataError: There are such rows; all are counted, the first are listed.
        """

    # Training

    def load_reader(self, folder: "Path") -> Any:
        """Load what turns a row into the model's inputs: the tokeniser of a base, unless a kind has another.

        One without a token for padding pads with the one that ends texts.

        Raises:
            MissingExtraError: This needs a library that is not installed.
        """
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if tokenizer.pad_token is None and tokenizer.eos_token is not None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def prepare_training(self, model: "nn.Module", reader: Any) -> "nn.Module":
        """Return what is called on a batch in training, and returns a loss: the adapted model itself."""
        return model

    def describe_head(self, labels: Sequence[str] | None) -> dict[str, Any]:
        """Return the fields of the base's configuration that decide the head's size and its loss."""
        return {}

    @abstractmethod
    def load_model(
        self, folder: "Path", labels: Sequence[str] | None, **options: Any
    ) -> "tuple[PreTrainedModel, frozenset[str]]":
        """Load the base with a head of this kind, from a folder of safetensors.

        Args:
            folder: The base.
            labels: The classes, or None.
            options: Fields of the base's configuration to change, such as its dropout.

        Returns:
            The model, and the names of the parameters that the base's weights do not hold: they are random.

        Raises:
            BaseModelError: The base is damaged, or its family has no such head.
        """

    @abstractmethod
    def encode_examples(
        self,
        reader: Any,
        rows: Sequence[Row],
        targets: Sequence[Label],
        labels: Sequence[str] | None,
    ) -> list[Features]:
        """Return what the model is trained on, unpadded: ``input_ids``, ``labels`` and what else it takes.

        A long row may become several, and one of which nothing could be learned none.
        """

    @abstractmethod
    def build_collator(self, reader: Any) -> Callable[[list[Features]], Any]:
        """Return what makes a padded batch of some rows' features."""

    def score_training(
        self,
        outputs: Outputs,
        targets: Sequence[Label],
        labels: Sequence[str] | None,
        names: Sequence[str],
    ) -> dict[str, float] | None:
        """Return metrics of the model's outputs on validation rows; None: such rows are only worth a loss."""
        return None

    @property
    def scores_training(self) -> bool:
        """Whether the metrics can be had of the outputs that training computes anyway."""
        return False

    # Prediction

    @abstractmethod
    def compute_outputs(
        self,
        model: "nn.Module",
        reader: Any,
        rows: Sequence[Row],
        labels: Sequence[str] | None,
        report: Report,
    ) -> Outputs:
        """Return some numbers a row that show what the model computes, shape (rows, numbers).

        Equal models give equal numbers, whatever the length of the rows: they are recorded at registration
        and compared at every load.
        """

    @abstractmethod
    def predict(
        self,
        model: "nn.Module",
        reader: Any,
        rows: Sequence[Row],
        labels: Sequence[str] | None,
        report: Report,
    ) -> list[Prediction]:
        """Return one prediction a row. ``report`` is told how many rows are done."""

    @abstractmethod
    def describe_prediction(self, prediction: Prediction) -> str:
        """Return a prediction in a few words, for a terminal."""

    # Evaluation

    def group_targets(self, rows: Sequence[Row], targets: Sequence[Label]) -> tuple[list[Row], list[Target]]:
        """Return the inputs to predict, and for each what its prediction is compared with."""
        return list(rows), list(targets)

    def record_target(self, target: Target) -> Target:
        """Return what is written down of a target beside its prediction."""
        return target

    def find_single_answer(
        self,
        targets: Sequence[Target],
        predictions: Sequence[Prediction],
    ) -> str | None:
        """Return what every input is answered with, where answers should differ; None: they do."""
        return None

    def choose_metrics(self, evaluate: EvaluateSpec) -> tuple[str, ...]:
        """Return the names of the metrics that a task asks for, its primary one first."""
        usual = [name for name in self.metrics if name not in self.optional_metrics]
        return tuple(dict.fromkeys([evaluate.primary or self.primary, *(evaluate.metrics or usual)]))

    def compute_metrics(
        self, names: Sequence[str], targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> dict[str, float]:
        """Return metric name -> value. A metric that is not defined on these rows is 0."""
        everything = np.arange(len(targets))
        return {name: self.metrics[name](targets, predictions)(everything) for name in names}

    @abstractmethod
    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> None:
        """Draw what a person wants to see of the test rows."""
