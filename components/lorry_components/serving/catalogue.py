"""The version of each task that is served, and the champions that are refused."""

import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lorry_components.inference import LoadedAdapter, load_adapter
from lorry_components.models.pooled_model import HEAD, is_pooled
from lorry_components.serving.shared_bases import SharedBases
from lorry_components.task_types.input_form import LINEAR_PROBE
from lorry_registry.errors import AdapterRejectedError, LorryError, NotFoundError, UsageError
from lorry_registry.registry import Registry, Resolution
from lorry_registry.tasks.task_document import suggest_name

if TYPE_CHECKING:
    from torch import nn

    from lorry_components.serving.mixed_lora import LoraLayers

SERVED_KINDS = ("text-classification", "regression", "question-answering", "knowledge-probing")
_INSTEAD = {
    "text-generation": "serve it with vLLM: lorry export vllm",
    "text-to-text": "use lorry predict",
    "image-generation": "use lorry predict",
}


@dataclass(frozen=True, slots=True, eq=False)
class ServedVersion:
    """A version of a task in memory.

    Attributes:
        task: The task.
        version: Its number.
        adapter_id: The digest of its manifest.
        loaded: The adapter on its base.
        group: Rows of versions with an equal group go through the base in one pass.
        head: The output layer, where it is applied apart from the base.
        lora: The layers of a LoRA adapter, where it can share a pass with others.
    """

    task: str
    version: int
    adapter_id: str
    loaded: LoadedAdapter
    group: Hashable
    head: "nn.Module | None" = None
    lora: "LoraLayers | None" = None

    @classmethod
    def of(cls, resolution: Resolution, loaded: LoadedAdapter) -> "ServedVersion":
        """Return a loaded adapter as a version that is served."""
        from lorry_components.serving.mixed_lora import find_lora_layers

        model: Any = loaded.predictor.adapted.model
        manifest = resolution.manifest
        named = (resolution.task, resolution.version, resolution.adapter_id)
        # What the head reads depends on the base and on how rows become its inputs, and on nothing else.
        form = loaded.task_type.form
        read = (
            manifest.base.fingerprint,
            form.max_length,
            form.pooling,
            "text_pair" in manifest.probe.rows[0],
        )
        if manifest.method == LINEAR_PROBE and is_pooled(model):
            return cls(*named, loaded, group=read, head=model.get_submodule(HEAD))
        lora = find_lora_layers(model)
        if lora is not None:
            return cls(*named, loaded, group=(*read, lora.shape), head=lora.head, lora=lora)
        return cls(*named, loaded, group=resolution.adapter_id)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the texts of a row."""
        return ("text", "text_pair") if "text_pair" in self.loaded.manifest.probe.rows[0] else ("text",)


def _report_nothing(_task: str, _found: ServedVersion | LorryError) -> None:
    pass


@dataclass(slots=True)
class Catalogue:
    """The versions that are served.

    One thread loads; others may look up what is served at any time: a version is put in the place of another
    when it is complete, and who has found one keeps it.

    Args:
        registry: Where champions are looked up and fetched from.
        bases: Puts adapters on bases.
        report: Called with a task and the version that is served from now on, or what is wrong with its
            champion, when that changes.

    Attributes:
        versions: The served version of each task.
        refused: What is wrong with the champion of a task that could not be loaded. If an earlier version was
            served before, it still is.
    """

    registry: Registry
    bases: SharedBases
    report: Callable[[str, ServedVersion | LorryError], None] = _report_nothing
    versions: dict[str, ServedVersion] = field(default_factory=dict)
    refused: dict[str, LorryError] = field(default_factory=dict)
    # Adapters that are not loaded again: their bytes are what they are.
    _rejected: dict[str, str] = field(default_factory=dict)
    _read_at: dict[str, float] = field(default_factory=dict)

    def load(self, tasks: Iterable[str]) -> None:
        """Load the champions of tasks; what fails is refused, and the others are served."""
        self._read_at |= dict.fromkeys(tasks, time.monotonic())
        self.refresh()

    def refresh(self) -> None:
        """Follow the ledger: load champions that are not served, and drop tasks that have none any more."""
        for task in self._read_at:
            try:
                self._follow(task)
            except LorryError as error:
                self._refuse(task, error)
            # What a library raises must not end the serving of the other tasks.
            except Exception as error:  # noqa: BLE001
                problem = f"it cannot be loaded: {type(error).__name__}: {error}"
                self._refuse(task, AdapterRejectedError(problem, where=task))

    @property
    def ledger_age(self) -> float:
        """For how many seconds the champion of some task is not known for sure."""
        now = time.monotonic()
        return now - min(self._read_at.values(), default=now)

    def _follow(self, task: str) -> None:
        asked_at = time.monotonic()
        try:
            resolution = self.registry.resolve(task)
        except NotFoundError:
            state = self.registry.ledger.read_state(task)
            if state.deleted is not None or state.champion is None:
                self.versions.pop(task, None)
            raise
        self._read_at[task] = asked_at
        served = self.versions.get(task)
        if served is not None and served.version == resolution.version:
            self._rejected.pop(task, None)
            if self.refused.pop(task, None) is not None:
                self.report(task, served)
        elif self._rejected.get(task) != resolution.adapter_id:
            self._load_version(resolution)

    def _load_version(self, resolution: Resolution) -> None:
        task, adapter_id = resolution.task, resolution.adapter_id
        check_kind(task, resolution.manifest.kind)
        folder = self.registry.fetch(adapter_id)
        try:
            loaded = load_adapter(
                folder,
                expected_id=adapter_id,
                find_base=self.bases.find_base,
                assemble=self.bases.assemble,
            )
        except AdapterRejectedError:
            self._rejected[task] = adapter_id
            raise
        self.bases.release_reader(loaded.predictor)
        self.versions[task] = served = ServedVersion.of(resolution, loaded)
        self.refused.pop(task, None)
        self._rejected.pop(task, None)
        self.report(task, served)

    def _refuse(self, task: str, error: LorryError) -> None:
        before, self.refused[task] = self.refused.get(task), error
        # Where it was found may differ each time: a download has a name of its own.
        if before is None or before.what != error.what:
            self.report(task, error)

    def find(
        self, task: str, version: int | None = None, *, allows: Callable[[str], bool] = bool
    ) -> ServedVersion:
        """Return the served version of a task.

        Args:
            task: The task.
            version: The version that it has to be; None: whichever is served.
            allows: Whether the name of a task may be said.

        Raises:
            NotFoundError: The task or this version of it is not served.
            LorryError: What is wrong with the champion of the task.
        """
        served = self.versions.get(task)
        if served is None:
            error = self.refused.get(task)
            if error is not None:
                raise error
            known = filter(allows, list(self.versions))
            raise NotFoundError("no such task is served", where=task, todo=suggest_name(task, known))
        if version not in (None, served.version):
            raise NotFoundError(
                f"v{version} is not served", where=task, todo=f"ask for v{served.version}, the champion"
            )
        return served


def check_kind(task: str, kind: str) -> None:
    """Refuse a task of a kind that is not served.

    Raises:
        UsageError: It says what to use instead.
    """
    if kind not in SERVED_KINDS:
        raise UsageError(
            f"tasks of kind {kind} are not served", where=task, todo=_INSTEAD.get(kind, "use lorry predict")
        )


def choose_tasks(registry: Registry, named: Iterable[str]) -> list[str]:
    """Return the tasks to serve: those named, or all of the registry, if they are on one base.

    Raises:
        UsageError: None is named, and the tasks of the registry are on several bases, or there is none.
        LorryError: A named task is not there.
    """
    if chosen := list(dict.fromkeys(named)):
        for task in chosen:
            registry.resolve(task)
        return chosen
    entries = [entry for entry in registry.list_tasks() if entry.manifest is not None]
    bases = {
        entry.manifest.base.fingerprint: entry.manifest.base.model
        for entry in entries
        if entry.manifest is not None and entry.manifest.kind in SERVED_KINDS
    }
    if not bases:
        raise UsageError("no task has a champion that can be served", todo="run: lorry run TASK_FILE")
    if len(bases) > 1:
        raise UsageError(
            f"the tasks of this registry are on {len(bases)} bases: {', '.join(sorted(bases.values()))}",
            where="lorry serve",
            todo="name the tasks to serve",
        )
    return [entry.task for entry in entries]
