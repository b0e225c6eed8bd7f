"""A task is resolved once: nothing is hashed, downloaded or built twice, and nothing before it is needed."""

import hashlib
import pickle
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from lorry_components.methods import Lora
from lorry_components.steps.evaluate.entry import main as evaluate_entry
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.finetune.entry import main as finetune_entry
from lorry_components.steps.finetune.step import finetune, name_checkpoints
from lorry_components.steps.gate.entry import main as gate_entry
from lorry_components.steps.gate.step import decide
from lorry_components.steps.prepare_data.entry import main as prepare_data_entry
from lorry_components.steps.register.entry import main as register_entry
from lorry_components.steps.register.step import register
from lorry_components.steps.runtime.outcomes import PROCEED
from lorry_components.steps.runtime.step_context import StepContext
from lorry_components.tasks.resolution import ResolvedTask, resolve_task
from lorry_components.tasks.staleness import assess_staleness
from lorry_pipelines.scheduling import plan_tasks
from lorry_registry.errors import BaseModelError
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.files.digests import digest_file
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.input_specs import BaseSpec
from lorry_registry.tasks.task_spec import TaskSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MakeSpec = Callable[..., TaskSpec]
MakeBase = Callable[..., Path]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often the content of each file is hashed in this process, whoever asks for it."""
    counts: Counter[str] = Counter()
    stock = hashlib.file_digest

    def count(stream: Any, *arguments: Any) -> Any:
        counts[str(stream.name)] += 1
        return stock(stream, *arguments)

    monkeypatch.setattr(hashlib, "file_digest", count)
    return counts


# What is resolved, and when


def test_nothing_is_resolved_before_it_is_needed(make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec(base=str(tmp_path / "nowhere"), data={"source": str(tmp_path / "nowhere.jsonl")})
    task = resolve_task(spec)
    assert task.spec is spec
    assert task.task_type.name == "regression"
    assert isinstance(task.build_method(), Lora)
    assert task.build_method().options is task.build_method().options
    assert task.recipe_digest == spec.recipe_digest
    with pytest.raises(BaseModelError, match="no such folder"):
        assert task.base


def test_each_part_is_resolved_once(make_spec: MakeSpec, make_base: MakeBase, hashed: Counter[str]) -> None:
    folder = make_base()
    task = resolve_task(make_spec(base=str(folder)))
    assert task.task_type is task.task_type
    assert task.base is task.base
    assert task.source_digest == task.source_digest
    assert task.find_base(BaseSpec(model=str(folder))) is task.base
    assert set(hashed.values()) == {1}
    assert {str(folder / "model.safetensors"), task.spec.data.source} <= hashed.keys()


def test_another_base_is_found_with_the_same_digests(make_spec: MakeSpec, make_base: MakeBase) -> None:
    asked: list[Path] = []

    def digest(path: Path) -> str:
        asked.append(path)
        return digest_file(path)

    other = make_base("other", seed=1)
    task = resolve_task(make_spec(base=str(make_base())), digest=digest)
    found = task.find_base(BaseSpec(model=str(other)))
    assert found.folder == other
    assert found.identity.fingerprint != task.base.identity.fingerprint
    assert other / "model.safetensors" in asked


def test_a_process_of_a_training_gets_what_was_resolved(
    make_spec: MakeSpec, make_base: MakeBase, tmp_path: Path, hashed: Counter[str]
) -> None:
    spec = make_spec(base=str(make_base()))
    task = resolve_task(spec, digest=DigestCache(tmp_path / "digests").digest_file)
    assert task.base
    hashed.clear()
    copy: ResolvedTask = pickle.loads(pickle.dumps(task))  # noqa: S301 - our own
    assert copy == task
    assert copy.base == task.base
    assert not hashed
    assert copy.source_digest == task.source_digest


def test_a_hub_base_is_downloaded_once(
    make_spec: MakeSpec,
    make_base: MakeBase,
    tmp_path: Path,
    store: LocalStore,
    mlflow_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, downloads = make_base(), []

    def download(repository: str, **_: Any) -> str:
        downloads.append(repository)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    spec = make_spec().model_copy(update={"base": BaseSpec(model="owner/name", revision=COMMIT)})
    outcome = prepare_data_entry(
        task=spec.model_dump_json(),
        run="run-1",
        store=str(store.root),
        tracking_uri=mlflow_uri,
        force=False,
        data=str(tmp_path / "data"),
        metadata={},
    )
    assert outcome == PROCEED
    assert downloads == ["owner/name"]


# What a step needs to be there


def test_training_needs_no_source_and_registration_no_base(
    make_spec: MakeSpec,
    make_base: MakeBase,
    tiny_data: Callable[[str], Path],
    registry: Registry,
    tmp_path: Path,
) -> None:
    base = make_base()
    spec = make_spec(
        base=str(base),
        data={"source": str(tmp_path / "elsewhere.jsonl")},
        train={"epochs": None, "steps": 1},
    )
    data, candidate, evaluation = tiny_data("regression"), tmp_path / "candidate", tmp_path / "evaluation"
    task = resolve_task(spec)
    assert name_checkpoints(task, data).startswith("tiny-regression-")
    finetune(task, data, candidate, checkpoints=tmp_path / "checkpoints")
    report = evaluate(resolve_task(spec), data, candidate, evaluation, registry=registry)
    shutil.rmtree(base)
    event = register(
        resolve_task(spec),
        candidate,
        report,
        decide(spec.gate, report),
        registry=registry,
        index=None,
        details={},
    ).event
    assert event.version == 1


def test_one_resolved_task_is_trained_and_evaluated(
    make_spec: MakeSpec, make_base: MakeBase, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    # PiSSA's method remembers what it took out of the base: no other adapter may be loaded through it.
    method = {"name": "lora", "r": 2, "targets": ["query"], "init": "pissa"}
    task = resolve_task(make_spec(base=str(make_base()), method=method, train={"epochs": None, "steps": 40}))
    data, candidate = tiny_data("regression"), tmp_path / "candidate"
    finetune(task, data, candidate, checkpoints=tmp_path / "checkpoints")
    report = evaluate(task, data, candidate, tmp_path / "evaluation", registry=None)
    fresh = evaluate(resolve_task(task.spec), data, candidate, tmp_path / "again", registry=None)
    assert report.evaluation == fresh.evaluation


def test_a_process_parses_its_task_once(
    make_spec: MakeSpec, store: LocalStore, mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    spec = make_spec(base=str(tmp_path / "nowhere"))
    parse, parsed = TaskSpec.model_validate, []

    def note(document: Any) -> TaskSpec:
        parsed.append(document)
        return parse(document)

    monkeypatch.setattr(TaskSpec, "model_validate", note)
    places = {"run": "run-1", "store": str(store.root), "tracking_uri": mlflow_uri}
    # A pod that judges or registers has no base.
    context = StepContext.open("gate", task=spec.model_dump_json(), **places)
    assert context.spec == context.task.spec == spec
    assert len(parsed) == 1


# A run


def _run_steps(
    spec: TaskSpec, run: str, folder: Path, store: LocalStore, uri: str, *, registers: bool = True
) -> list[str]:
    """Call the entries of the steps as the graph does, each of which opens what it needs."""
    places = {"task": spec.model_dump_json(), "run": run, "store": str(store.root), "tracking_uri": uri}
    place = folder / run / spec.name
    data, candidate, evaluation, decision = (
        str(place / name) for name in ("data", "candidate", "evaluation", "decision")
    )
    outputs = [
        prepare_data_entry(**places, force=True, data=data, metadata={}),
        finetune_entry(
            **places, checkpoints=str(place / "checkpoints"), data=data, candidate=candidate, metadata={}
        ),
        evaluate_entry(
            **places,
            data=data,
            candidate=candidate,
            evaluation=evaluation,
            plot=str(place / "plot.html"),
            metadata={},
        ),
    ]
    if not registers:
        return outputs
    return [
        *outputs,
        gate_entry(**places, evaluation=evaluation, decision=decision, metadata={}),
        register_entry(
            **places,
            data=data,
            candidate=candidate,
            evaluation=evaluation,
            decision=decision,
            adapter=SimpleNamespace(metadata={}),
        ),
    ]


def test_six_tasks_hash_their_base_and_their_data_once(
    make_spec: MakeSpec,
    make_base: MakeBase,
    tiny_source: Callable[[str], Path],
    store: LocalStore,
    mlflow_uri: str,
    tmp_path: Path,
    hashed: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / "home"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORRY_HOME", str(home))
    base = make_base()
    sources = [tmp_path / f"rows{number}.jsonl" for number in range(2)]
    for source in sources:
        shutil.copyfile(tiny_source("regression"), source)
    specs = [
        make_spec(
            base=str(base),
            name=f"task-{number}",
            data={"source": str(sources[number % 2])},
            train={"epochs": None, "steps": 1, "seed": number},
            evaluate={"resamples": 100},
        )
        for number in range(6)
    ]
    # Files that have just been written are not trusted to stay as they are.
    time.sleep(2.1)
    settings = Settings.load({"LORRY_HOME": str(home)}, tmp_path)
    registry = Registry(store, settings.cache / "adapters")
    tasks = [resolve_task(spec, digest=DigestCache(settings.digests).digest_file) for spec in specs]
    planned = plan_tasks(tasks, registry, force=False)
    assert [plan.staleness.reason for plan in planned] == ["it has no adapter yet"] * 6
    for plan in planned[2:]:
        outputs = _run_steps(plan.spec, "run-1", tmp_path, store, mlflow_uri, registers=False)
        assert outputs == [PROCEED] * 3
    # Two of them to their end, which takes longest; and one once more, with a champion on the same base.
    for plan, run in ((planned[0], "run-1"), (planned[1], "run-1"), (planned[0], "run-2")):
        assert _run_steps(plan.spec, run, tmp_path, store, mlflow_uri) == [PROCEED] * 5
    files = [*base.iterdir(), *sources]
    assert {path.name: hashed[str(path)] for path in files} == {path.name: 1 for path in files}
    # The files of an adapter are hashed whenever they are read.
    assert max(hashed[path] for path in hashed if "adapter_model" in path) > 1
    assert not assess_staleness(resolve_task(specs[1]), registry).is_stale
