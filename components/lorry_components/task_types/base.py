"""The interface of a task type.

Every task type is of one family: text, for the models of transformers' that read texts
(:class:`~lorry_components.task_types.text_task.TextTaskType`), or diffusion, for a UNet with the frozen parts
around it (:class:`~lorry_components.task_types.diffusion.base.DiffusionTaskType`). What a caller needs of a
task type is a method here; what only one family has is a method of that family, and a caller that treats
families differently gives a function for each to :meth:`TaskType.match_family`.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lorry_components.data.examples import Example
from lorry_components.data.rows import DataForm, Label, Row
from lorry_components.metrics.base import Metric, Prediction, Target
from lorry_components.metrics.pictures import ConfusionPicture, ScatterPicture
from lorry_components.task_types.adapting_method import AdaptingMethod
from lorry_components.task_types.input_form import LINEAR_PROBE, InputForm
from lorry_components.task_types.training_form import TrainingForm
from lorry_registry.errors import Fault
from lorry_registry.manifest import Pooling
from lorry_registry.tasks.input_specs import DataSpec
from lorry_registry.tasks.task_document import suggest_name
from lorry_registry.tasks.task_sections import TaskSections
from lorry_registry.tasks.task_spec import EvaluateSpec, GateSpec, GenerateSpec, HeadSpec, TrainSpec

# Above this, a share was meant to be a percentage.
_PERCENT = 2.0

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import nn
    from transformers import PreTrainedModel

    from lorry_components.task_types.diffusion.base import DiffusionTaskType
    from lorry_components.task_types.text_task import TextTaskType

Features = dict[str, Any]
"""What a model takes of one example, unpadded, by the names of its arguments."""

Report = Callable[[int], None]
"""Called with the number of rows that are done."""

Outputs = NDArray[np.float32]

Answer = TypeVar("Answer")

IGNORED = -100
"""The label of a position on which no loss is computed: PyTorch's cross-entropy leaves it out."""


def gather_targets(rows: Sequence[Row], targets: Sequence[Label]) -> list[tuple[Row, list[Label]]]:
    """Return each input once, with the labels of all its rows, in the order in which it first comes."""
    gathered: dict[tuple[str, ...], tuple[Row, list[Label]]] = {}
    for row, target in zip(rows, targets, strict=True):
        gathered.setdefault(tuple(row.values()), (row, []))[1].append(target)
    return list(gathered.values())


def batch_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Return the numbers of all rows in batches of similar length, so that little is computed on padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + size] for start in range(0, len(order), size)]


class TaskType(ABC):
    """How one type of task is read, encoded, modelled, scored and shown.

    Its only state is the form of its inputs; what depends on the data comes in as ``labels``, the classes of
    a classification in a fixed order, or None.

    Args:
        form: How rows become the model's inputs.

    Attributes:
        name: Its name in task files.
        summary: What it predicts, in a few words.
        data_form: How its rows are checked and divided.
        named_file_endings: The endings of the files beside a table that labels may name, in lower case.
        training_form: How its examples are trained on.
        metrics: Its metrics, by name.
        primary: The metric that the gate looks at when a task names none.
        error_metrics: The metrics of which less is better; none of them can be the primary one.
        optional_metrics: The metrics that are computed only when a task names them.
        unbounded_metrics: The metrics that can be above 1.
        row_metric: The metric that tells how well a single row was answered; empty: none does.
        peft_task_type: PEFT's name for this type of model, by which it feeds soft tokens; None: it has none.
        libraries: The libraries that it computes with, beside those of all task types.
        prediction_fields: The fields of a prediction for inputs alone, and MLflow's names of their types;
            ``map`` is one from strings to doubles. Empty: MLflow does not say what comes out.
        code_version: Is raised when a change of its code changes what is learned, see
            :mod:`lorry_components.tasks.code_versions`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    data_form: ClassVar[DataForm]
    named_file_endings: ClassVar[tuple[str, ...]] = ()
    training_form: ClassVar[TrainingForm] = TrainingForm()
    metrics: ClassVar[Mapping[str, Metric]]
    primary: ClassVar[str]
    error_metrics: ClassVar[frozenset[str]] = frozenset()
    optional_metrics: ClassVar[frozenset[str]] = frozenset()
    unbounded_metrics: ClassVar[frozenset[str]] = frozenset()
    row_metric: ClassVar[str] = ""
    peft_task_type: ClassVar[str | None]
    libraries: ClassVar[tuple[str, ...]] = ()
    prediction_fields: ClassVar[Mapping[str, str]] = {}
    code_version: ClassVar[int] = 1

    def __init__(self, form: InputForm) -> None:
        self.form = form

    @abstractmethod
    def match_family(
        self,
        *,
        text: "Callable[[TextTaskType], Answer]",
        diffusion: "Callable[[DiffusionTaskType], Answer]",
    ) -> Answer:
        """Call the function that is given for the family of this task type, and return what it returns."""

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
        if sections.gate is not None:
            yield from cls.check_minimum(sections.gate, sections.evaluate)
        if sections.head is not None:
            yield from cls.check_head(sections.head)

    @classmethod
    def check_data(cls, data: DataSpec) -> Iterator[Fault]:
        """Check the columns and the template."""
        yield from cls.check_template(data.template, has_pair=data.columns.text_pair is not None)

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
    @abstractmethod
    def check_generate(cls, generate: GenerateSpec) -> Iterator[Fault]:
        """Check that every field of the section is for what this task type generates."""

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
        if evaluate.positive is not None and not cls.data_form.has_classes:
            yield Fault("evaluate.positive", f"{cls.name} has no classes", "leave it out")
        if primary in cls.error_metrics:
            yield Fault("evaluate.primary", f"of {primary!r} less is better", f"choose {cls.primary!r}")

    @classmethod
    def check_minimum(cls, gate: GateSpec, evaluate: EvaluateSpec | None) -> Iterator[Fault]:
        """Check that the primary metric can reach what the gate asks for: it is a share, not a percentage."""
        primary = (evaluate.primary if evaluate is not None else None) or cls.primary
        # A little above 1 is how a task says that nothing is promoted by itself.
        if gate.minimum is None or gate.minimum <= _PERCENT or primary in cls.unbounded_metrics:
            return
        percent = f"write {gate.minimum / 100:g}" if gate.minimum <= 100 else "write a share"
        yield Fault(
            "gate.minimum", f"{primary} is never above 1, so {gate.minimum:g} is never reached", percent
        )

    @classmethod
    def check_head(cls, head: HeadSpec) -> Iterator[Fault]:  # noqa: ARG003
        """Check the section about the head on whole texts."""
        yield Fault("head", f"a {cls.name} task has no head on whole texts", "leave it out")

    @classmethod
    def check_method(cls, name: str) -> Iterator[Fault]:
        """Check that the task type works with a method, given by its name."""
        if name == LINEAR_PROBE:
            yield Fault(
                "method.name",
                f"probe fits a head on whole texts, and a {cls.name} task has none",
                "choose another method, such as lora",
            )

    def check_training(self, train: TrainSpec, method: AdaptingMethod) -> Iterator[Fault]:
        """Say which options of training do not suit this task type with a method, on any base."""
        yield from ()

    # The base

    def check_folder(self, folder: Path) -> Iterator[Fault]:
        """Say what this task type lacks in a base's folder, before weights are read."""
        yield from ()

    @abstractmethod
    def check_on_base(self, folder: Path, train: TrainSpec, method: AdaptingMethod) -> Iterator[Fault]:
        """Say why a task of this type does not work on a base, from the base's configuration.

        Args:
            folder: The base.
            train: How the task is trained.
            method: How the base is adapted.

        Raises:
            BaseModelError: The configuration cannot be read, or no model can be built from it.
        """

    def settle(self, folder: Path, rows: int | None = None) -> Self:
        """Return the same task type, in whose form nothing depends on the base or the data any more.

        Args:
            folder: The base.
            rows: The training rows; None: as many as anything needs.

        Raises:
            BaseModelError: The base's files are damaged.
        """
        return self

    def leave_head_open(self) -> Self:
        """Return the same task type for a task that says nothing of its head."""
        return self

    def hold_pooling(self, pooling: Pooling | None) -> Self:
        """Return the same task type with a head that reads what was recorded."""
        if pooling == self.form.pooling:
            return self
        return type(self)(dataclasses.replace(self.form, pooling=pooling))

    def find_recorded_pooling(self) -> Pooling | None:
        """Return what adapters record of their head; the task type was settled."""
        return self.form.pooling if isinstance(self.form.pooling, Pooling) else None

    def reads_first_position(self, reader: Any) -> bool:
        """Return whether an encoder's head reads the state of a row's first position and nothing else."""
        return False

    # The data

    @abstractmethod
    def parse_label(self, raw: object) -> Label:
        """Turn a cell of the label column into a label.

        Raises:
            ValueError: It is not a label of this task type; the message says why.
        """

    def find_fault(self, row: Row, label: Label) -> str:
        """Return what is wrong between an input and its label; empty: nothing."""
        return ""

    def spell_label(self, label: Label) -> str:
        """Return the text of a label, whose words the data card counts."""
        return str(label)

    def list_named_files(self, folder: Path) -> Sequence[str]:
        """Return the names of the files beside a table in a folder that labels may name, sorted."""
        return ()

    def read_named_file(self, folder: Path, label: Label) -> Mapping[str, str]:
        """Return the fields that a row gets from the file in a folder that its label names, if it names one.

        Raises:
            ValueError: There is no such file, or it cannot be used; the message says why.
        """
        return {}

    def review_examples(self, parts: Mapping[str, Sequence[Example]], folder: Path) -> Iterator[str]:
        """Say what a person should know of examples on a base before trusting a score, a sentence each.

        Args:
            parts: The examples of each part.
            folder: The base.
        """
        yield from ()

    def accepts_labels(self, labels: Sequence[str] | None) -> bool:
        """Return whether an adapter can have these classes: some for a task type with classes, else none."""
        return self.data_form.has_classes == bool(labels)

    def check_rows(self, reader: Any, rows: Sequence[Row]) -> None:  # noqa: B027
        """Refuse inputs that do not fit the base, such as too long texts, before anything is trained.

        Raises:
            InvalidDataError: There are such rows; all are counted, the first are listed.
        """

    # Training

    @abstractmethod
    def load_reader(self, folder: Path) -> Any:
        """Load what turns a row into the model's inputs, such as the tokeniser of a base.

        Raises:
            MissingExtraError: This needs a library that is not installed.
        """

    def list_load_options(self, folder: Path, train: TrainSpec, attention: str | None) -> dict[str, Any]:
        """Return what a base is loaded with for training, beside what the method asks for.

        Args:
            folder: The base.
            train: How the task is trained, such as with which dropout.
            attention: The implementation of attention; None: the base's own choice.
        """
        return {}

    def prepare_training(self, model: "nn.Module", reader: Any) -> "nn.Module":
        """Return what is called on a batch in training, and returns a loss: the adapted model itself."""
        return model

    @abstractmethod
    def load_model(
        self, folder: Path, labels: Sequence[str] | None, **options: Any
    ) -> "tuple[PreTrainedModel, frozenset[str]]":
        """Load the base with a head of this task type, from a folder of safetensors.

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
        positive: str | None = None,
    ) -> dict[str, float] | None:
        """Return metrics of the model's outputs on validation rows; None: outputs are not looked at."""
        return None

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

        Equal models give equal numbers, for any length of the rows: they are recorded at registration
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
        """Return one prediction a row. ``report`` is called with how many rows are done."""

    @abstractmethod
    def describe_prediction(self, prediction: Prediction) -> str:
        """Return a prediction in a few words, for a terminal."""

    def store_prediction(self, prediction: Prediction, folder: Path, name: str) -> Prediction:
        """Write what of a prediction is no text into a folder, and return it with the path in its place.

        Args:
            prediction: The prediction.
            folder: Where to write; nothing that is there is replaced.
            name: What file names begin with.

        Raises:
            StoreError: It cannot be written.
        """
        return prediction

    # Evaluation

    def group_targets(
        self, rows: Sequence[Row], targets: Sequence[Label]
    ) -> tuple[Sequence[Row], list[Target]]:
        """Return the inputs to predict, and for each what its prediction is compared with."""
        return rows, list(targets)

    def record_target(self, target: Target) -> Target:
        """Return what of a target is recorded beside its prediction."""
        return target

    def find_single_answer(
        self,
        targets: Sequence[Target],
        predictions: Sequence[Prediction],
    ) -> str | None:
        """Return the answer that every input gets, where answers should differ; None: they do differ."""
        return None

    def predict_trivially(
        self,
        rows: Sequence[Row],
        answers: Sequence[Label],
        labels: Sequence[str] | None,
    ) -> dict[str, list[Prediction]]:
        """Return trivial baselines, which learn nothing: by its name, a prediction for each row.

        Args:
            rows: The inputs.
            answers: The labels of the training rows.
            labels: The classes, or None.
        """
        return {}

    def reduce_to_base(self) -> Self | None:
        """Return the task type by which the base answers without any training; None: it has a new head."""
        return None

    def choose_metrics(self, evaluate: EvaluateSpec) -> tuple[str, ...]:
        """Return the names of the metrics that a task asks for, its primary one first."""
        usual = [name for name in self.metrics if name not in self.optional_metrics]
        return tuple(dict.fromkeys([evaluate.primary or self.primary, *(evaluate.metrics or usual)]))

    def find_metric(self, name: str, positive: str | None) -> Metric:
        """Return a metric by its name.

        Args:
            name: The name.
            positive: The class that a metric of one class is of; None: the metric's own choice.
        """
        return self.metrics[name]

    def find_positive(
        self,
        names: Sequence[str],
        positive: str | None,
        predictions: Sequence[Prediction],
    ) -> str | None:
        """Return the class that some of the named metrics are of; None: none is of a single class.

        Args:
            names: The metrics.
            positive: The class that a task file names, if it names one.
            predictions: What is scored.
        """
        return None

    def check_positive(self, evaluate: EvaluateSpec, labels: Sequence[str] | None) -> Iterator[Fault]:
        """Check that the class that a task file names for F1 is one of the classes."""
        yield from ()

    def compute_metrics(
        self,
        names: Sequence[str],
        targets: Sequence[Target],
        predictions: Sequence[Prediction],
        positive: str | None = None,
    ) -> dict[str, float]:
        """Return metric name -> value. A metric that is not defined on these rows is 0."""
        everything = np.arange(len(targets))
        return {name: self.find_metric(name, positive)(targets, predictions)(everything) for name in names}

    def score_rows(
        self, targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> NDArray[np.float64] | None:
        """Return how well each single row was answered, more is better; None: not known."""
        if not self.row_metric:
            return None
        scorer = self.metrics[self.row_metric](targets, predictions)
        # One after the other: some scorers take room for all rows in each set of rows.
        return np.asarray([scorer(np.asarray([place])) for place in range(len(targets))], dtype=np.float64)

    def picture_predictions(
        self, targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> ConfusionPicture | ScatterPicture | None:
        """Return a small picture of the test rows as plain data, for reports; None: there is none."""
        return None

    @abstractmethod
    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> None:
        """Draw what a person wants to see of the test rows."""
