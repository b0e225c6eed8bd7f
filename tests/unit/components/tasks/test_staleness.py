"""Whether a task has to be trained again, and why."""

import importlib.metadata
import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lorry_components.data import fingerprinting
from lorry_components.data.fingerprinting import read_present_rows, save_fingerprints
from lorry_components.data.reading import digest_source
from lorry_components.models.bases import resolve_base
from lorry_components.steps.gate.step import Decision
from lorry_components.steps.register.step import register
from lorry_components.tasks.inspection import Inspection, inspect_task
from lorry_components.tasks.resolution import resolve_task
from lorry_components.tasks.staleness import GATE_DETAIL, Staleness, assess_staleness, describe_gate
from lorry_registry.errors import BaseModelError, InvalidDataError, NotFoundError
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.files.digests import digest_bytes, digest_file
from lorry_registry.maintenance.collection import Rules, plan_collection, sweep_store
from lorry_registry.maintenance.task_deletion import delete_task, restore_task
from lorry_registry.records.drift_records import DriftRecord, write_drift
from lorry_registry.records.row_fingerprints import RowChanges, RowFingerprints
from lorry_registry.registry import Registry
from lorry_registry.tasks.task_spec import RetrainSpec, TaskSpec, TrainSpec


class Workshop:
    """A task whose data and base may be changed, and a way to register it without training."""

    def __init__(self, spec: TaskSpec, source: Path, base: Path, registry: Registry, template: Any) -> None:
        self.spec, self.source, self.base, self.registry = spec, source, base, registry
        self._template = template
        self._folder = source.parent / "candidate"
        shutil.copytree(template.candidate, self._folder)

    def assess(self, **changes: Any) -> Staleness:
        spec = self.spec.model_copy(update=changes)
        return assess_staleness(resolve_task(spec), self.registry)

    def inspect(self, *, reads_rows: bool = True, **changes: Any) -> Inspection:
        spec = self.spec.model_copy(update=changes)
        return inspect_task(resolve_task(spec), self.registry, reads_rows=reads_rows)

    def learn(self, *, passed: bool = True) -> int:
        """Register a version that was learned from what is there now."""
        summary = self._template.summary
        present = read_present_rows(self.spec.data, resolve_task(self.spec).task_type)
        fingerprints = RowFingerprints.collect(
            present.labels, trained=present.labels.keys(), salt=present.data_digest
        )
        save_fingerprints(fingerprints, self._folder)
        inputs = summary.inputs.model_copy(
            update={
                "source_digest": digest_source(self.spec.data),
                "data_digest": present.data_digest,
                "recipe_digest": self.spec.recipe_digest,
                "fingerprints_digest": fingerprints.digest,
            }
        )
        base = resolve_base(self.spec.base).identity
        summary.model_copy(update={"inputs": inputs, "base": base}).save(self._folder)
        judged = self.registry.ledger.read_state(self.spec.name).champion_version
        decision = Decision(passed=passed, reasons=(), judged_champion=judged)
        return register(
            resolve_task(self.spec),
            self._folder,
            self._template.report,
            decision,
            registry=self.registry,
            index=None,
            details={},
        ).event.version

    def judge_again(self, adapter_id: str) -> None:
        """Let the gate refuse a version once more, by the champion of now."""
        self.registry.register(
            self.spec.name,
            adapter_id,
            promote=False,
            judged_champion=self.registry.ledger.read_state(self.spec.name).champion_version,
            reasons=("it is no better",),
            details={GATE_DETAIL: describe_gate(resolve_task(self.spec))},
            is_renewed=True,
        )

    def write_rows(self, count: int, *, first: int = 0, **labels: float) -> None:
        rows = [
            {"text": f"row {index}", "label": labels.get(f"row{index}", index)}
            for index in range(first, first + count)
        ]
        self.source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def workshop(
    make_spec: Callable[..., TaskSpec],
    make_base: Callable[..., Path],
    trained: Callable[..., Any],
    registry: Registry,
    tmp_path: Path,
) -> Workshop:
    source, base = tmp_path / "rows.jsonl", make_base()
    spec = make_spec(base=str(base), data={"source": str(source)})
    found = Workshop(spec, source, base, registry, trained())
    found.write_rows(20)
    return found


def change_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_task_without_an_adapter_is_stale(workshop: Workshop) -> None:
    assert workshop.assess() == Staleness(is_stale=True, reason="it has no adapter yet")


def test_nothing_changed(workshop: Workshop) -> None:
    workshop.learn()
    found = workshop.assess()
    assert found == Staleness(
        is_stale=False, reason="v1 was trained from the same data, base and recipe", version=1
    )


def test_a_version_that_was_refused_is_not_trained_again(workshop: Workshop) -> None:
    workshop.learn(passed=False)
    assert workshop.assess().version == 1


def test_a_refused_version_is_judged_anew_when_the_gate_changed(workshop: Workshop) -> None:
    workshop.learn(passed=False)
    found = workshop.assess()
    assert (found.is_stale, found.is_refused, found.renewed, found.has_work) == (False, True, None, False)
    assert (
        found.reason == "v1 was trained from the same data, base and recipe, and the same gate refused it: "
    )
    adapter_id = workshop.registry.list_versions(workshop.spec.name)[0].adapter_id
    for changes in (
        {"gate": workshop.spec.gate.model_copy(update={"minimum": 0.1})},
        {"evaluate": workshop.spec.evaluate.model_copy(update={"primary": "spearman"})},
    ):
        found = workshop.assess(**changes)
        assert (found.is_stale, found.renewed, found.has_work) == (False, adapter_id, True)
        assert found.reason.endswith("but another gate refused it: it is judged anew, without training")
    # What a default says out loud changes nothing, nor does what the gate does not look at.
    same = workshop.spec.gate.model_copy(update={"confidence": 0.95})
    assert not workshop.assess(gate=same, owner="others").has_work


def learn_twice(workshop: Workshop) -> tuple[TrainSpec, TrainSpec]:
    """Let two recipes become the champion, one after the other; return what they say of training."""
    first = workshop.spec.train
    second = first.model_copy(update={"seed": 7})
    for train in (first, second):
        workshop.spec = workshop.spec.model_copy(update={"train": train})
        workshop.learn()
    return first, second


def test_a_version_that_was_rolled_back_is_not_called_up_to_date(workshop: Workshop) -> None:
    name = workshop.spec.name
    first, second = learn_twice(workshop)
    workshop.registry.rollback(name, reason="it answers nonsense", by="alice")
    rolled_back = workshop.assess(train=second)
    assert (rolled_back.version, rolled_back.retired, rolled_back.has_work) == (2, "rolled back", False)
    assert "but it is not in use: " in rolled_back.reason
    assert "alice: rolled back to v1: it answers nonsense" in rolled_back.reason
    assert rolled_back.reason.endswith(f"the champion is v1; to use v2 again: lorry promote {name} v2")
    assert workshop.assess(train=first).retired == ""


def test_a_former_champion_is_not_called_up_to_date(workshop: Workshop) -> None:
    name = workshop.spec.name
    first, second = learn_twice(workshop)
    found = workshop.assess(train=first)
    assert (found.version, found.retired, found.is_refused) == (1, "former champion", False)
    assert "followed by v2 as the champion" in found.reason
    # By hand, with a reason.
    workshop.registry.promote(name, 1, reason="v2 is slow", by="bob")
    assert workshop.assess(train=first).retired == ""
    found = workshop.assess(train=second)
    assert (found.version, found.retired) == (2, "former champion")
    assert "bob: followed by v1 as the champion: v2 is slow; the champion is v1" in found.reason


def refuse_against_second(workshop: Workshop) -> str:
    """Let a third recipe be refused against v2; return its adapter."""
    learn_twice(workshop)
    workshop.spec = workshop.spec.model_copy(
        update={"train": workshop.spec.train.model_copy(update={"seed": 8})}
    )
    workshop.learn(passed=False)
    assert workshop.assess().is_refused
    assert not workshop.assess().has_work
    return workshop.registry.list_versions(workshop.spec.name)[2].adapter_id


@pytest.mark.parametrize("move", ["rollback", "promote", "withdraw"])
def test_a_refusal_holds_against_the_champion_that_it_was_judged_by(workshop: Workshop, move: str) -> None:
    name = workshop.spec.name
    third = refuse_against_second(workshop)
    if move == "promote":
        workshop.registry.promote(name, 1, reason="v2 is slow")
    else:
        getattr(workshop.registry, move)(name, reason="it answers nonsense")
    found = workshop.assess()
    assert (found.is_stale, found.renewed, found.has_work) == (False, third, True)
    present = "none" if move == "withdraw" else "v1"
    assert found.reason.endswith(
        f"but it was refused against v2, and the champion is {present} now: "
        "it is judged anew, without training"
    )
    assert workshop.inspect().state == "to judge"
    # Judged by that champion, and refused again.
    workshop.judge_again(third)
    assert (workshop.assess().is_refused, workshop.assess().has_work) == (True, False)
    # And back to the one that it was refused against first.
    workshop.registry.promote(name, 2, reason="it was not that slow")
    assert not workshop.assess().has_work


def test_a_refusal_holds_against_whoever_beat_that_champion(workshop: Workshop) -> None:
    refuse_against_second(workshop)
    third = workshop.spec
    workshop.spec = third.model_copy(update={"train": third.train.model_copy(update={"seed": 9})})
    workshop.learn()
    workshop.spec = third
    delete_task(workshop.registry, third.name, reason="a mistake")
    restore_task(workshop.registry, third.name, reason="it was")
    assert (workshop.assess().version, workshop.assess().is_refused, workshop.assess().has_work) == (
        *(3, True, False),
    )


def test_what_changed_is_told_against_the_champion_after_a_rollback(workshop: Workshop) -> None:
    first, _ = learn_twice(workshop)
    workshop.registry.rollback(workshop.spec.name, reason="it answers nonsense")
    found = workshop.inspect(train=first.model_copy(update={"seed": 9}))
    assert (found.state, found.compared) == ("stale", 1)
    assert found.reason == "recipe changed since v1 (train.seed 0 -> 9)"
    assert [change.how for change in found.changes] == ["train.seed 0 -> 9"]


def test_whoever_was_promoted_by_hand_is_not_refused_any_more(workshop: Workshop) -> None:
    workshop.learn(passed=False)
    workshop.registry.promote(workshop.spec.name, 1, reason="good enough")
    changed = workshop.spec.gate.model_copy(update={"minimum": 0.1})
    assert workshop.assess(gate=changed) == Staleness(
        is_stale=False, reason="v1 was trained from the same data, base and recipe", version=1
    )


def test_changed_data_is_told(workshop: Workshop) -> None:
    workshop.learn()
    workshop.write_rows(21)
    found = workshop.assess()
    assert found.is_stale
    assert found.version is None
    assert found.reason == "data changed since v1"


def test_a_changed_base_is_told(workshop: Workshop) -> None:
    workshop.learn()
    change_byte(workshop.base / "model.safetensors")
    found = workshop.assess()
    assert found.is_stale
    assert found.reason.startswith("base changed since v1 (")
    assert "data" not in found.reason
    assert "recipe" not in found.reason


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": {"epochs": 5}}, "train.epochs 2 -> 5"),
        ({"train": {"seed": 1}}, "train.seed 0 -> 1"),
        ({"method": {"name": "lora", "r": 2}}, "method.r 4 -> 2"),
        ({"method": {"name": "p-tuning"}}, "method.name lora -> p-tuning"),
        ({"data": {"max_length": 16}}, "data.max_length 32 -> 16"),
        ({"data": {"split": {"validation": 0.2, "test": 0.1, "seed": 1}}}, "data.split"),
    ],
    ids=["epochs", "seed", "rank", "method", "max_length", "split"],
)
def test_a_changed_recipe_is_told(
    workshop: Workshop, make_spec: Callable[..., TaskSpec], changes: dict[str, Any], told: str
) -> None:
    workshop.learn()
    data = {"source": str(workshop.source)} | changes.pop("data", {})
    changed = make_spec(base=str(workshop.base), data=data, **changes)
    found = assess_staleness(resolve_task(changed), workshop.registry)
    assert found.is_stale
    assert found.reason.startswith("recipe changed since v1 (")
    assert found.reason.count("changed") == 1
    assert told in found.reason


def test_all_that_changed_is_told(workshop: Workshop, make_spec: Callable[..., TaskSpec]) -> None:
    workshop.learn()
    workshop.write_rows(21)
    change_byte(workshop.base / "model.safetensors")
    changed = make_spec(base=str(workshop.base), data={"source": str(workshop.source)}, train={"epochs": 5})
    reason = assess_staleness(resolve_task(changed), workshop.registry).reason
    assert [part.split()[0] for part in reason.split("; ")] == ["base", "data", "recipe"]


@pytest.mark.parametrize(
    "changes",
    [
        {"description": "How good a film is."},
        {"owner": "the team"},
        {"gate": {"minimum": 0.5, "minimum_gain": 0.1}},
        {"evaluate": {"resamples": 500, "metrics": ["rmse"]}},
        {"resources": {"count": 1, "memory": "16Gi"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_does_not_decide_what_is_learned_is_not_stale(
    workshop: Workshop, make_spec: Callable[..., TaskSpec], changes: dict[str, Any]
) -> None:
    workshop.learn()
    changed = make_spec(base=str(workshop.base), data={"source": str(workshop.source)}, **changes)
    assert assess_staleness(resolve_task(changed), workshop.registry).version == 1


def test_the_same_data_elsewhere_is_not_stale(workshop: Workshop, tmp_path: Path) -> None:
    workshop.learn()
    (tmp_path / "moved").mkdir()
    moved = shutil.move(workshop.source, tmp_path / "moved" / workshop.source.name)
    data = workshop.spec.data.model_copy(update={"source": str(moved)})
    assert workshop.assess(data=data).version == 1


def test_going_back_to_earlier_data_finds_the_earlier_version(workshop: Workshop) -> None:
    workshop.learn()
    workshop.write_rows(21)
    assert workshop.learn() == 2
    assert workshop.assess().version == 2
    workshop.write_rows(20)
    found = workshop.assess()
    assert (found.is_stale, found.version) == (False, 1)
    # What has changed is told against the newest version.
    workshop.write_rows(22)
    assert workshop.assess().reason == "data changed since v2"


def test_a_base_or_a_source_that_is_gone_is_no_staleness(workshop: Workshop) -> None:
    workshop.learn()
    workshop.source.unlink()
    with pytest.raises(InvalidDataError):
        workshop.assess()
    workshop.write_rows(20)
    shutil.rmtree(workshop.base)
    with pytest.raises(BaseModelError):
        workshop.assess()


def test_a_deleted_task_is_refused_before_it_is_trained(workshop: Workshop) -> None:
    workshop.learn()
    delete_task(workshop.registry, workshop.spec.name, reason="replaced", by="ann")
    with pytest.raises(NotFoundError, match=r"deleted on .* by ann: replaced") as caught:
        workshop.assess()
    assert "lorry restore" in caught.value.todo


def test_a_version_whose_files_were_collected_is_not_up_to_date(workshop: Workshop) -> None:
    workshop.learn()
    delete_task(workshop.registry, workshop.spec.name, reason="replaced", by="ann")
    rules = Rules(1, timedelta())
    time.sleep(0.01)
    sweep_store(workshop.registry, plan_collection(workshop.registry, rules), rules)
    restore_task(workshop.registry, workshop.spec.name, reason="the name is needed", by="ann")
    assert workshop.assess() == Staleness(is_stale=True, reason="the files of its adapters were collected")


# What is told of a task beside its champion


def test_rows_are_told_against_the_champion(workshop: Workshop) -> None:
    assert workshop.inspect().state == "new"
    workshop.write_rows(60)
    workshop.learn()
    assert (workshop.inspect().state, workshop.inspect().changes) == ("fresh", ())
    workshop.write_rows(65, first=2, row7=0.5)
    found = workshop.inspect()
    assert (found.state, found.champion, found.compared, found.has_work) == ("stale", 1, 1, True)
    assert found.rows == RowChanges(added=7, removed=2, relabelled=1)
    assert [change.part for change in found.changes] == ["data"]
    unread = workshop.inspect(reads_rows=False)
    assert (unread.state, unread.rows) == ("stale", None)


def test_the_same_rows_in_another_order_make_nothing_stale(workshop: Workshop) -> None:
    workshop.learn()
    lines = workshop.source.read_text("utf-8").splitlines(keepends=True)
    workshop.source.write_text("".join(reversed(lines)), "utf-8")
    assert workshop.assess().is_stale
    found = workshop.inspect()
    assert (found.state, found.has_work, found.changes) == ("fresh", False, ())
    assert found.notes[0] == "the source of the data has another form, and the same rows"


def test_data_that_cannot_be_used_are_still_told_as_changed(workshop: Workshop) -> None:
    workshop.learn()
    workshop.source.write_text("{\n", "utf-8")
    found = workshop.inspect()
    assert found.state == "stale"
    assert found.notes[0].startswith("the data cannot be used as they are: ")


def test_a_version_that_was_rolled_back_is_not_asked_for_until_something_changes(workshop: Workshop) -> None:
    workshop.learn()
    workshop.write_rows(30)
    assert workshop.learn() == 2
    workshop.registry.rollback(workshop.spec.name, reason="it was rude", by="ann")
    found = workshop.inspect()
    assert (found.state, found.has_work, found.champion, found.version) == ("rolled back", False, 1, 2)
    assert "ann: rolled back to v1: it was rude" in found.reason
    # Another gate does not bring it back either: nobody has refused it by one.
    gate = workshop.spec.gate.model_copy(update={"minimum": 0.0})
    assert not workshop.inspect(gate=gate).has_work
    workshop.write_rows(31)
    assert workshop.inspect().state == "stale"


def test_a_refusal_is_told_beside_what_changed(workshop: Workshop) -> None:
    workshop.learn()
    workshop.write_rows(30)
    workshop.learn(passed=False)
    found = workshop.inspect()
    assert (found.state, found.has_work, found.champion, found.version) == ("refused", False, 1, 2)
    assert found.rows == RowChanges(10, 0, 0)
    gate = workshop.spec.gate.model_copy(update={"minimum": 0.1})
    judged = workshop.inspect(gate=gate)
    assert (judged.state, judged.has_work) == ("to judge", True)


def test_a_champion_of_something_else_is_told(workshop: Workshop) -> None:
    workshop.learn()
    workshop.write_rows(30)
    workshop.learn()
    assert workshop.inspect().notes == ()
    workshop.write_rows(20)
    found = workshop.inspect()
    assert (found.state, found.version, found.champion) == ("fresh", 1, 2)
    assert "the champion is v2, which was made of something else" in found.notes[0]


def test_other_libraries_are_told(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.learn()
    assert workshop.inspect().notes == ()
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "99")
    found = workshop.inspect()
    assert found.state == "fresh"
    assert found.notes[0].startswith("other libraries than v1 was trained with: peft ")
    asking = workshop.inspect(retrain=RetrainSpec(on=("libraries",)))
    assert (asking.state, [change.part for change in asking.changes]) == ("stale", ["libraries"])


def test_data_that_have_not_moved_are_not_read_again(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.learn()
    hashed: list[str] = []

    def hash_file(path: Path) -> str:
        hashed.append(path.name)
        return digest_file(path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(fingerprinting, "read_checked", refuse)
    # Whoever hashes a file that changed a moment ago does not trust its times.
    time.sleep(2.1)
    for _ in range(3):
        digest = DigestCache(tmp_path / "digests", hash_file=hash_file).digest_file
        assert inspect_task(resolve_task(workshop.spec, digest=digest), workshop.registry).state == "fresh"
    assert hashed.count(workshop.source.name) == 1
    assert len(hashed) == len(set(hashed))


@pytest.mark.parametrize("has_drifted", [True, False])
def test_drifted_inputs_are_told_for_the_champion_that_they_were_compared_for(
    workshop: Workshop, has_drifted: bool
) -> None:
    workshop.learn()
    champion = workshop.registry.ledger.read_state(workshop.spec.name).champion
    assert champion is not None
    record = DriftRecord(
        task=workshop.spec.name,
        champion=champion.version,
        adapter_id=champion.adapter_id,
        inputs_digest=digest_bytes(b"inputs"),
        at=datetime(2026, 11, 28, tzinfo=UTC),
        has_drifted=has_drifted,
        confidence=0.99,
        shifts={"length": 0.002},
    )
    write_drift(workshop.registry.store, record)
    found = workshop.inspect()
    assert (found.state, found.is_stale, found.has_work) == (
        ("drifted", True, False) if has_drifted else ("fresh", False, False)
    )
    assert ("inputs of 2026-11-28 have drifted" in found.reason) == has_drifted
    # It is a remark where there is something to train, and forgotten with another champion.
    changed = workshop.inspect(train=TrainSpec(epochs=7))
    assert changed.state == "stale"
    assert any("have drifted" in note for note in changed.notes) == has_drifted
    write_drift(workshop.registry.store, record.model_copy(update={"adapter_id": digest_bytes(b"another")}))
    assert workshop.inspect().state == "fresh"
