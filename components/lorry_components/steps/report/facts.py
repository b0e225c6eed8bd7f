"""The facts of a report as plain data: its Markdown and its page are drawn from these alone."""

from datetime import datetime
from typing import Literal

from lorry_components.metrics.pictures import ConfusionPicture, ScatterPicture
from lorry_components.steps.evaluate.row_changes import RowChanges
from lorry_components.steps.finetune.learning_curve import LearningCurve
from lorry_registry.records.adapter_facts import AdapterFacts, Facts, SizeFacts

FactStatus = Literal["promoted", "challenger", "unchanged", "current", "failed"]


class GainFacts(Facts):
    """The new version beside the champion that it challenged.

    Attributes:
        version: The champion's version.
        value: Its metric on the rows that both are compared on; else as it was registered; None: unknown.
        is_recorded: Whether that value is the one of its registration, on the test rows of that time.
        recorded: Its metric as it was registered, on the test rows of that time.
        gain: The new version's metric less the champion's.
        p_value: That of the paired one-sided test for more than the minimum gain that the task asks for;
            None: it was not tested on the same rows.
        rows: On how many rows the two are compared.
        left_out: How many test rows are left out, because the champion was trained on them.
        problem: Why the champion could not be loaded, if so.
        changes: How single rows changed.
    """

    version: int
    value: float | None = None
    is_recorded: bool = False
    recorded: float | None = None
    gain: float | None = None
    p_value: float | None = None
    rows: int | None = None
    left_out: int = 0
    problem: str = ""
    changes: RowChanges | None = None


class DataFacts(Facts):
    """The data of the new version, and of the one before.

    Attributes:
        source: The name of the file or its address.
        rows: Part -> rows.
        rows_before: The same of the version before; empty: not known.
        labels: Class -> training rows; empty for other labels and for very many classes.
        labels_before: The same of the version before.
        dropped: Reason -> rows left out for it.
        warnings: What to know before trusting a score.
    """

    source: str = ""
    rows: dict[str, int] = {}
    rows_before: dict[str, int] = {}
    labels: dict[str, int] = {}
    labels_before: dict[str, int] = {}
    dropped: dict[str, int] = {}
    warnings: tuple[str, ...] = ()


class TaskFacts(AdapterFacts):
    """Everything that a report says of one task, beside what is known of its adapter.

    Attributes:
        status: What became of it.
        step: The step that failed, or the last one that was reached.
        why: Why it was trained, or why not.
        reasons: The gate's reasons; of a failure, its message.
        against: Those of the reasons that speak against the new version.
        version: The version that the run registered or found up to date; None: there is none.
        champion: The version that is the champion since; None: there is none, or it is not known.
        adapter_id: The version's adapter.
        run: The pipeline run.
        method_before: That of the champion that was challenged.
        gain: The comparison with the champion; None: there was none.
        single_answer: The one answer that every test row gets, if so.
        kept_start: Why the adapter is nothing but a fitted head, if so.
        validation_gap: That validation and test scores differ by more than chance, if so.
        curve: Losses and validation scores of the training; None: not known.
        picture: A small picture of the predictions.
        data: The data.
        size_before: The champion's.
        seconds: The time of each step.
        train_seconds: How long training itself took.
        device: What it was trained on.
        mlflow_url: The page of the training in MLflow.
        kfp_url: The page of the run in Kubeflow.
        registered_at: When the version was registered.
        registered_by: Who registered it.
    """

    status: FactStatus
    step: str = ""
    why: str = ""
    reasons: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    version: int | None = None
    champion: int | None = None
    adapter_id: str = ""
    run: str = ""
    method_before: str = ""
    gain: GainFacts | None = None
    single_answer: str = ""
    kept_start: str = ""
    validation_gap: str = ""
    curve: LearningCurve | None = None
    picture: ConfusionPicture | ScatterPicture | None = None
    data: DataFacts = DataFacts()
    size_before: SizeFacts | None = None
    seconds: dict[str, float] = {}
    train_seconds: float | None = None
    device: str = ""
    mlflow_url: str = ""
    kfp_url: str = ""
    registered_at: datetime | None = None
    registered_by: str = ""


class ReportFacts(Facts):
    """A report: what it is about, and its tasks in the order in which they are shown."""

    title: str
    tasks: tuple[TaskFacts, ...]
