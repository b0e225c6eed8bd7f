"""A run that will not fit is refused before it starts; what surely fits is let through without torch."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.memory import check_fits, is_surely_small, plan_task
from lorry_components.memory.upper_bounds import bound_training
from lorry_components.models.configuration import (
    BaseConfiguration,
    read_configuration,
    read_known_configurations,
)
from lorry_pipelines.scheduling import refuse_what_does_not_fit
from lorry_registry.errors import InvalidTaskError
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
REVISION = "0" * 40
T4 = {"count": 1, "node_selector": {"nvidia.com/gpu.product": "Tesla-T4"}, "memory": "64Gi"}


def test_what_fits_has_no_faults(make_spec: MakeSpec) -> None:
    for resources in ({}, T4):
        spec = make_spec(resources=resources)
        assert list(check_fits(spec, plan_task(spec))) == []
        assert is_surely_small(spec, read_configuration(spec.base))


def test_a_processor_without_the_memory(make_spec: MakeSpec) -> None:
    spec = make_spec(resources={"memory": "100Mi"})
    (fault,) = check_fits(spec, plan_task(spec))
    assert fault.where == "resources.memory"
    assert "100Mi is less than lora takes" in fault.what


def test_a_gpu_without_the_memory(make_spec: MakeSpec) -> None:
    base = {"model": "bigscience/bloomz-7b1", "revision": REVISION}
    spec = make_spec({"name": "full"}, base=base, resources=T4)
    (on_gpu,) = check_fits(spec, plan_task(spec))
    assert on_gpu.where == "resources.node_selector"
    assert "T4 16 GB has 14.6 GiB" in on_gpu.what
    assert on_gpu.remedy == "H200 141 GB is large enough"
    small = make_spec({"name": "full"}, base=base, resources={**T4, "memory": "16Gi"})
    assert [fault.where for fault in check_fits(small, plan_task(small))] == [
        "resources.memory",
        "resources.node_selector",
    ]


def test_a_batch_that_processes_cannot_divide(make_spec: MakeSpec) -> None:
    spec = make_spec(resources={"count": 3, "memory": "64Gi"})
    (fault,) = check_fits(spec, plan_task(spec))
    assert fault.where == "train.batch_size"
    assert "a batch of 8 cannot be divided among 3 processes" in fault.what
    assert not is_surely_small(spec, read_configuration(spec.base))


def test_the_machine_holds_the_base_of_each_process(make_spec: MakeSpec) -> None:
    base = {"model": "FacebookAI/roberta-large", "revision": REVISION}
    for count, fits in ((1, True), (8, False)):
        spec = make_spec(base=base, resources={"count": count, "memory": "4Gi"})
        assert [fault.where for fault in check_fits(spec, plan_task(spec))] == (
            [] if fits else ["resources.memory"]
        )
        assert not is_surely_small(spec, read_configuration(spec.base))


def test_an_adapter_above_its_limit(make_spec: MakeSpec) -> None:
    lora = {"name": "lora", "r": 4, "targets": ["query", "value"], "max_adapter_mib": 0.005}
    spec = make_spec(lora)
    plan = plan_task(spec)
    assert plan.adapter_bytes > 0.005 * 2**20
    (fault,) = check_fits(spec, plan)
    assert fault.where == "method.max_adapter_mib"
    assert "above the limit of 0.005 MiB" in fault.what
    assert not list(check_fits(make_spec(lora | {"max_adapter_mib": 1}), plan))
    # What changed is stored, and that may be less.
    spec = make_spec({"name": "ft-top", "layers": 1, "max_adapter_mib": 0.005})
    assert not list(check_fits(spec, plan_task(spec)))


def test_a_gpu_that_is_not_known_is_not_judged(make_spec: MakeSpec) -> None:
    base = {"model": "bigscience/bloomz-7b1", "revision": REVISION}
    spec = make_spec({"name": "full"}, base=base, resources={"count": 1, "memory": "64Gi"})
    assert list(check_fits(spec, plan_task(spec))) == []


@pytest.mark.parametrize("model", [*read_known_configurations(), "tiny"])
@pytest.mark.parametrize("method", [{"name": "full"}, {"name": "lora"}])
def test_the_bound_is_above_the_plan(model: str, method: dict[str, Any], make_spec: MakeSpec) -> None:
    base = None if model == "tiny" else {"model": model, "revision": REVISION}
    spec = make_spec(
        method,
        **({"base": base} if base else {}),
        data={"max_length": 10 if model == "tiny" else 256},
        train={"hidden_dropout": 0.1, "attention_dropout": 0.1},
    )
    known = read_configuration(spec.base)
    bound = bound_training(spec, known.values)
    assert bound is not None
    assert bound >= plan_task(spec, base=known).training.high


def test_sizes_that_are_not_known_have_no_bound(make_spec: MakeSpec) -> None:
    spec = make_spec()
    assert bound_training(spec, {"model_type": "resnet"}) is None
    mixture = {**read_known_configurations()["bigscience/bloomz-7b1"], "num_experts": 8}
    assert bound_training(spec, mixture) is None
    assert not is_surely_small(spec, BaseConfiguration(mixture, "somewhere"))


def test_all_that_does_not_fit_is_told_together(make_spec: MakeSpec) -> None:
    small = {"memory": "100Mi"}
    specs = [
        make_spec(name="one", resources=small),
        make_spec(name="two"),
        make_spec(name="three", resources=small),
    ]
    with pytest.raises(InvalidTaskError) as caught:
        refuse_what_does_not_fit(specs)
    assert [fault.place for fault in caught.value.faults] == [
        "one: resources.memory",
        "three: resources.memory",
    ]
    assert {fault.where for fault in caught.value.faults} == {"resources.memory"}
    assert "--force" in caught.value.todo


def test_what_cannot_be_planned_is_not_refused(make_spec: MakeSpec, tmp_path: Path) -> None:
    small = {"memory": "100Mi"}
    refuse_what_does_not_fit(
        [
            make_spec(base={"model": str(tmp_path / "nowhere")}, resources=small),
            make_spec(base={"model": "nobody/nothing", "revision": REVISION}, resources=small),
            make_spec({"name": "lora", "r": 64, "targets": ["query"]}, resources=small),
        ]
    )


def test_what_fails_in_another_way_is_not_refused(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no heads")

    monkeypatch.setattr("lorry_pipelines.scheduling.is_surely_small", fail)
    with caplog.at_level("INFO"):
        refuse_what_does_not_fit([make_spec()])
    assert "tiny is not planned: no heads" in caplog.text


def test_what_surely_fits_is_let_through_without_torch(make_spec: MakeSpec) -> None:
    code = """
import sys
from lorry_pipelines.scheduling import refuse_what_does_not_fit
from lorry_registry.tasks.task_spec import TaskSpec
refuse_what_does_not_fit([TaskSpec.model_validate_json(sys.argv[1])])
print(*sorted({"torch", "transformers", "peft"} & set(sys.modules)))
"""
    arguments = [sys.executable, "-c", code, make_spec().model_dump_json()]
    assert subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split() == []
