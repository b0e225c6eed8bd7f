"""The registration step as a plain function."""

import itertools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from lorry_components.data.data_card import DataCard
from lorry_components.data.fingerprinting import FINGERPRINTS_NAME
from lorry_components.steps.evaluate.evaluation_report import EvaluationReport
from lorry_components.steps.finetune.run_inputs import list_parameters, write_card
from lorry_components.steps.gate.step import Decision, build_challenge
from lorry_components.steps.register.mlflow_publication import publish_version
from lorry_components.steps.register.model_card import render_card
from lorry_components.steps.register.peft_usage import write_peft_usage
from lorry_components.steps.runtime.registered_candidate import RegisteredCandidate
from lorry_components.tasks.resolution import ResolvedTask
from lorry_components.tasks.staleness import GATE_DETAIL, describe_gate
from lorry_components.training.training_summary import ADAPTER_FOLDER, TrainingSummary
from lorry_registry.adapters.verification import describe_file, read_config
from lorry_registry.errors import ConflictError, LorryError
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.promotion import Version, find_version
from lorry_registry.manifest import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, Manifest
from lorry_registry.mlflow.best_effort import BestEffort
from lorry_registry.mlflow.index import MlflowIndex, sync_aliases
from lorry_registry.records.provenance import PROVENANCE_DETAIL, Build, attach_provenance
from lorry_registry.records.row_fingerprints import store_fingerprints
from lorry_registry.records.training_record import CARD_DETAIL, TRAINING_DETAIL, TrainingFacts, store_card
from lorry_registry.registry import Registry

_NO_FILES = ()
# How often a candidate is judged, if the champion changes each time.
_JUDGEMENTS = 5
# How long MLflow may take to show a version; `lorry reconcile` shows it later.
_MLFLOW_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Registration:
    """A version of a task.

    Attributes:
        event: The ledger's record of it.
        manifest: The adapter's identity.
        warning: Why MLflow does not show it yet, if so.
    """

    event: Event
    manifest: Manifest
    warning: str = ""


def register(
    task: ResolvedTask,
    candidate: Path,
    report: EvaluationReport,
    decision: Decision,
    *,
    registry: Registry,
    index: MlflowIndex | None,
    details: dict[str, JsonValue],
    build: Build | None = None,
    judge: Callable[[], Decision] | None = None,
    guard: Callable[[], None] = lambda: None,
    card: DataCard | None = None,
) -> Registration:
    """Publish a candidate to the store, record it in the ledger, and show it in MLflow, in this order.

    A candidate that the gate refused is registered too, as a challenger with the gate's reasons.

    Args:
        task: The task; neither its base nor the source of its data need be on this machine.
        candidate: The folder that ``finetune`` wrote; it may name a version that was registered before, which
            keeps its number.
        report: Its evaluation.
        decision: The gate's decision.
        registry: Where it is registered.
        index: MLflow; None: it is not shown there.
        details: Kept with the event in the history: the run and MLflow's run id.
        build: What is known of the run, for the adapter's provenance; None: nothing is recorded of it.
        judge: Judges the candidate again, when another run has changed the champion since the decision; None:
            the candidate is a challenger then.
        guard: Called before the ledger is written; it raises if this run may not write any more.
        card: What its data are, kept beside the adapter; None: nothing is kept of it.

    Raises:
        ConflictError: The run's work was taken over. Nothing was registered.
        StoreError: The store cannot be written. Nothing was registered.
        UsageError: Signatures are required, and there is no key to sign with. Nothing was registered.
    """
    registered = RegisteredCandidate.find(candidate)
    if registered is not None:
        manifest = registry.read_manifest(registered.adapter_id)
        decision = _remark(decision, f"judged anew, without training: {registered.why}")
    else:
        summary = TrainingSummary.load(candidate)
        manifest = _publish(task, candidate, summary, report, registry)
        details = {**details, **_keep_record(task, manifest, summary, card, registry)}
        if build is not None:
            details = {**details, PROVENANCE_DETAIL: attach_provenance(registry.store, manifest, build)}
    guard()
    event = _record(
        task, manifest.adapter_id, decision, registry, details, judge, is_renewed=registered is not None
    )
    warnings: list[str] = []
    if index is not None:
        version = Version(event.version, manifest.adapter_id, event)
        if registered is not None:
            # The run that trained it is in the event that registered it.
            history = registry.ledger.read_history(task.spec.name)
            version = find_version(history, event.version, task=task.spec.name)
        mlflow = BestEffort(
            f"MLflow does not show v{event.version} yet",
            warnings.append,
            todo=f"run: lorry reconcile {task.spec.name}",
        )
        with index.limiting(_MLFLOW_SECONDS):
            mlflow.attempt(
                lambda: publish_version(
                    index, registry, task=task.spec.name, version=version, manifest=manifest
                )
            )
            mlflow.attempt(lambda: sync_aliases(index, registry, task.spec.name))
    return Registration(event, manifest, "".join(warnings))


def _publish(
    task: ResolvedTask,
    candidate: Path,
    summary: TrainingSummary,
    report: EvaluationReport,
    registry: Registry,
) -> Manifest:
    """Put a new training into the store, with what recognises its rows beside it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        manifest = _assemble(task, candidate / ADAPTER_FOLDER, summary, report, folder)
        registry.publish(folder, manifest)
    # Before the ledger names it: those of a champion are never missing.
    store_fingerprints(registry.store, manifest, (candidate / FINGERPRINTS_NAME).read_bytes())
    return manifest


def _keep_record(
    task: ResolvedTask,
    manifest: Manifest,
    summary: TrainingSummary,
    card: DataCard | None,
    registry: Registry,
) -> dict[str, JsonValue]:
    """Keep what the manifest does not hold of a training; return what the event is to say of it."""
    facts = TrainingFacts(
        learning_rate=summary.learning_rate,
        steps=summary.steps,
        examples=summary.examples,
        seconds=round(summary.seconds, 1),
        device=summary.device,
        precision=summary.precision,
        batch_size=summary.batch_size,
        options=list_parameters(task.spec)["method"]["options"],
        kept_start=summary.kept_start,
    )
    details: dict[str, JsonValue] = {TRAINING_DETAIL: facts.model_dump(mode="json")}
    if card is not None:
        details[CARD_DETAIL] = store_card(registry.store, manifest, write_card(card).encode("utf-8"))
    return details


def _assemble(
    task: ResolvedTask, adapter: Path, summary: TrainingSummary, report: EvaluationReport, folder: Path
) -> Manifest:
    """Copy the adapter's files into a folder and return the manifest over them."""
    spec = task.spec
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        shutil.copyfile(adapter / name, folder / name)
    manifest = Manifest(
        task=spec.name,
        kind=spec.kind,
        owner=spec.owner,
        description=spec.description,
        base=summary.base,
        method=spec.method.name,
        recipe=spec.describe_recipe(),
        inputs=summary.inputs,
        labels=summary.labels,
        parameters=summary.parameters,
        evaluation=report.evaluation,
        probe=report.probe,
        libraries=summary.libraries,
        files=_NO_FILES,
        head=summary.head,
    )
    card = render_card(manifest, read_config(folder), write_peft_usage(manifest, folder))
    write_whole_text(folder / CARD_NAME, card)
    names = (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME)
    return manifest.model_copy(update={"files": tuple(describe_file(folder / name) for name in names)})


def _record(
    task: ResolvedTask,
    adapter_id: str,
    decision: Decision,
    registry: Registry,
    details: dict[str, JsonValue],
    judge: Callable[[], Decision] | None,
    *,
    is_renewed: bool,
) -> Event:
    name, gate = task.spec.name, task.spec.gate

    def enter(decided: Decision) -> Event:
        return registry.register(
            name,
            adapter_id,
            promote=decided.passed,
            judged_champion=decided.judged_champion,
            reasons=decided.reasons,
            details={**details, GATE_DETAIL: describe_gate(task)},
            challenge=build_challenge(gate, decided),
            is_renewed=is_renewed,
        )

    for attempt in itertools.count(1):
        try:
            return enter(decision)
        except ConflictError as error:
            if registry.ledger.read_state(name).champion_version == decision.judged_champion:
                raise
            # Another run promoted its own adapter: the judgement is about a former champion.
            if judge is None or attempt == _JUDGEMENTS:
                return enter(_refuse(decision, error.what))
            try:
                decision = judge()
            except (LorryError, MemoryError, RuntimeError) as problem:
                # Torch raises a RuntimeError when memory ends. The adapter must not be lost by that.
                return enter(_refuse(decision, f"{error.what}, and with that it cannot be judged: {problem}"))
    raise AssertionError("counting does not end")


def _remark(decision: Decision, remark: str) -> Decision:
    return decision.model_copy(update={"reasons": (remark, *decision.reasons)})


def _refuse(decision: Decision, why: str) -> Decision:
    reason = f"the champion changed while it was judged: {why}"
    return decision.model_copy(update={"passed": False, "reasons": (reason, *decision.reasons)})
