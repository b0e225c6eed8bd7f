"""Several processes, and frozen weights in shares: the same training as in one process and one piece."""

import multiprocessing
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lorry_components.progress import Progress, ignore_progress
from lorry_components.steps.finetune.step import finetune
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.checkpoints.stored_checkpoints import CheckpointPlace
from lorry_components.training.distributed.process_group import (
    Node,
    ProcessGroup,
    finetune_in_processes,
    separate_random_numbers,
)
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.errors import InvalidTaskError, LostProcessError, TrainingError
from lorry_registry.stores import S3Options
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
STEPS = 5


class Training:
    """Runs a training and remembers what it told."""

    def __init__(self, data: Path, root: Path) -> None:
        self.data = data
        self.root = root
        self.progress: list[tuple[int, int]] = []
        self.metrics: dict[str, float] = {}

    def run(self, spec: TaskSpec, name: str, *, processes: int) -> TrainingSummary:
        return finetune_in_processes(
            finetune,
            processes,
            resolve_task(spec),
            self.data,
            self.root / name,
            checkpoints=self.root / f"{name}-checkpoints",
            progress=lambda done, total, _note="": self.progress.append((done, total)),
            log_metrics=lambda metrics, _step: self.metrics.update(metrics),
        )

    def run_alone(self, spec: TaskSpec, name: str) -> TrainingSummary:
        return finetune(
            resolve_task(spec), self.data, self.root / name, checkpoints=self.root / f"{name}-checkpoints"
        )

    def read(self, name: str) -> dict[str, Any]:
        return dict(load_file(self.root / name / "adapter" / "adapter_model.safetensors"))


@pytest.fixture
def training(tiny_data: Callable[[str], Path], tmp_path: Path) -> Training:
    return Training(tiny_data("regression"), tmp_path)


def write(make_spec: MakeSpec, method: str | dict[str, Any] = "lora", **train: Any) -> TaskSpec:
    still = {"epochs": None, "steps": STEPS, "hidden_dropout": 0.0}
    return make_spec(method=method, train=still | train)


def check_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    ("method", "offload", "accumulation"),
    [
        pytest.param("lora", False, 1, marks=pytest.mark.exhaustive),
        ("lora", True, 2),
        pytest.param("adapter-h", True, 1, marks=pytest.mark.exhaustive),
        pytest.param({"name": "adapter-p", "train_layer_norms": True}, True, 1, marks=pytest.mark.exhaustive),
        pytest.param({"name": "adapter-l"}, True, 1, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_two_processes_train_as_one(
    training: Training,
    make_spec: MakeSpec,
    method: str | dict[str, Any],
    offload: bool,
    accumulation: int,
) -> None:
    # As many rows a step, however they are accumulated: all steps lie in the first epoch.
    rows = {"batch_size": 16 // accumulation, "gradient_accumulation": accumulation}
    finetune(
        resolve_task(write(make_spec, method, **rows)),
        training.data,
        training.root / "one",
        checkpoints=training.root / "checkpoints",
    )
    summary = training.run(write(make_spec, method, offload=offload, **rows), "two", processes=2)
    assert summary.steps == STEPS
    check_same(training.read("two"), training.read("one"))
    assert training.progress[-1] == (STEPS, STEPS)
    assert "validation/pearson" in training.metrics
    # Each step is told once, by one of them.
    assert len(training.progress) == STEPS + 1


def test_a_process_alone_may_keep_its_frozen_weights_elsewhere(
    training: Training, make_spec: MakeSpec
) -> None:
    finetune(
        resolve_task(write(make_spec)),
        training.data,
        training.root / "one",
        checkpoints=training.root / "checkpoints",
    )
    training.run(write(make_spec, offload=True), "apart", processes=1)
    check_same(training.read("apart"), training.read("one"))


@pytest.mark.exhaustive
def test_shares_go_on_from_a_checkpoint(training: Training, make_spec: MakeSpec) -> None:
    spec = write(make_spec, offload=True, steps=8)
    training.run(spec, "whole", processes=2)

    def stop(done: int, _total: int, _note: str = "") -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune_in_processes(
            finetune,
            2,
            resolve_task(spec),
            training.data,
            training.root / "broken",
            checkpoints=training.root / "broken-checkpoints",
            progress=stop,
            log_metrics=lambda _metrics, _step: None,
        )
    assert not (training.root / "broken" / "adapter").exists()
    summary = training.run(spec, "broken", processes=2)
    assert 0 < summary.resumed_from < 8
    check_same(training.read("broken"), training.read("whole"))


# Two nodes go on from the store below; here two processes share a disk besides.
@pytest.mark.exhaustive
def test_one_process_uploads_checkpoints_and_all_go_on_from_them(
    training: Training, make_spec: MakeSpec
) -> None:
    spec = write(make_spec, steps=8)
    # In two processes as well: the short last batch of an epoch is another one there than in one process.
    training.run(spec, "whole", processes=2)
    place = CheckpointPlace(str(training.root / "store"), "checkpoints/reviews", S3Options())
    uploaded = training.root / "store" / "checkpoints" / "reviews"

    def stop(done: int, _total: int, _note: str = "") -> None:
        if done >= 6 and list(uploaded.glob("checkpoint-[45].*/complete.json")):
            raise KeyboardInterrupt

    def run(name: str, progress: Progress) -> TrainingSummary:
        place.open().restore(training.root / f"{name}-checkpoints")
        return finetune_in_processes(
            finetune,
            2,
            resolve_task(spec),
            training.data,
            training.root / name,
            checkpoints=training.root / f"{name}-checkpoints",
            progress=progress,
            log_metrics=lambda _metrics, _step: None,
            place=place,
        )

    with pytest.raises(KeyboardInterrupt):
        run("broken", stop)
    for complete in uploaded.glob("*/complete.json"):
        assert {path.name for path in complete.parent.glob("rng*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    summary = run("elsewhere", ignore_progress)
    assert 4 <= summary.resumed_from < 8
    assert [path.parent.name.split(".")[0] for path in uploaded.glob("*/complete.json")] == ["checkpoint-8"]
    check_same(training.read("elsewhere"), training.read("whole"))


def test_each_process_draws_random_numbers_of_its_own() -> None:
    def draw(seed: int, rank: int) -> list[float]:
        torch.manual_seed(seed)
        separate_random_numbers(seed, ProcessGroup(rank, 3))
        return torch.rand(4).tolist()

    drawn = [draw(seed, rank) for seed in (0, 1) for rank in range(3)]
    assert len({tuple(numbers) for numbers in drawn}) == len(drawn)
    torch.manual_seed(1)
    assert drawn[3] == torch.rand(4).tolist()
    assert draw(1, 2) == drawn[5]


def test_what_a_process_raises_comes_back(training: Training, make_spec: MakeSpec) -> None:
    with pytest.raises(TrainingError, match="a batch of 15 cannot be divided among 2 processes"):
        training.run(write(make_spec, batch_size=15), "odd", processes=2)
    assert not (training.root / "odd" / "adapter").exists()


def test_a_process_that_is_killed_is_told(training: Training, make_spec: MakeSpec) -> None:
    def kill() -> None:
        while not training.progress:
            time.sleep(0.05)
        victim = multiprocessing.active_children()[-1].pid
        assert victim is not None
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(TrainingError):
        training.run(write(make_spec, steps=5000), "killed", processes=2)
    killer.join()
    assert multiprocessing.active_children() == []


class _Leave:
    """Ends the process that it is sent to, with nothing said and as if all were well."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (0,)


def test_processes_that_end_without_a_word_are_told(training: Training) -> None:
    with pytest.raises(TrainingError, match="process 0 of 2 ended with code 0, but without a result"):
        finetune_in_processes(
            finetune,
            2,
            _Leave(),
            training.data,
            training.root / "silent",
            checkpoints=training.root / "checkpoints",
            progress=ignore_progress,
            log_metrics=lambda _metrics, _step: None,
        )
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("method", ["full", "bitfit"])
def test_without_frozen_weights_there_is_nothing_to_keep_elsewhere(
    training: Training, make_spec: MakeSpec, method: str
) -> None:
    spec = write(make_spec, method, offload=True)
    with pytest.raises(InvalidTaskError) as caught:
        finetune(
            resolve_task(spec),
            training.data,
            training.root / "refused",
            checkpoints=training.root / "checkpoints",
        )
    assert [fault.where for fault in caught.value.faults] == ["train.offload"]


def find_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class TwoNodes:
    """Two machines, as far as a training sees them: each has its own disk, and they meet at an address."""

    def __init__(self, training: Training, place: CheckpointPlace) -> None:
        self.training = training
        self.place = place

    def run(self, spec: TaskSpec, name: str, *, stop_after: int | None = None) -> list[Any]:
        """Train; return what each of them ends with: a summary, or an error."""
        port = find_port()

        def train(number: int) -> Any:
            root = self.training.root / f"{name}-{number}"
            self.place.open().restore(root / "checkpoints")

            def stop(done: int, _total: int, _note: str = "") -> None:
                if done == stop_after:
                    raise KeyboardInterrupt

            try:
                return finetune_in_processes(
                    finetune,
                    1,
                    resolve_task(spec),
                    self.training.data,
                    root,
                    checkpoints=root / "checkpoints",
                    progress=stop,
                    log_metrics=lambda _metrics, _step: None,
                    place=self.place,
                    node=Node(number, 2, "127.0.0.1", port),
                )
            except BaseException as error:  # noqa: BLE001 - told to the test
                return error

        with ThreadPoolExecutor(2) as nodes:
            return list(nodes.map(train, range(2)))


@pytest.mark.slow
def test_two_nodes_go_on_from_the_store_as_if_they_had_not_stopped(
    training: Training, make_spec: MakeSpec, tmp_path: Path
) -> None:
    # With dropout each process draws random numbers of its own, which go on from the checkpoint as well.
    spec = make_spec(method="lora", train={"epochs": None, "steps": 8})
    whole = TwoNodes(training, CheckpointPlace(str(tmp_path / "first"), "training", S3Options()))
    summaries = whole.run(spec, "whole")
    assert [summary.steps for summary in summaries] == [8, 8]
    stopped = TwoNodes(training, CheckpointPlace(str(tmp_path / "second"), "training", S3Options()))
    ended = stopped.run(spec, "stopped", stop_after=6)
    assert isinstance(ended[0], KeyboardInterrupt)
    assert isinstance(ended[1], LostProcessError), ended[1]
    uploaded = tmp_path / "second" / "training"
    for complete in uploaded.glob("*/complete.json"):
        assert {path.name for path in complete.parent.glob("rng*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    resumed = stopped.run(spec, "resumed")
    assert 0 < resumed[0].resumed_from == resumed[1].resumed_from < 8
    assert [path.parent.name.split(".")[0] for path in uploaded.glob("*/complete.json")] == ["checkpoint-8"]
    expected = training.read("whole-0")
    for name, tensor in training.read("resumed-0").items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)
    # Only the first writes an adapter.
    assert not (training.root / "resumed-1" / "adapter").exists()


@pytest.mark.slow
def test_nodes_that_fetched_different_checkpoints_do_not_start(
    training: Training, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(method="lora", train={"epochs": None, "steps": 8})
    nodes = TwoNodes(training, CheckpointPlace(str(tmp_path / "store"), "training", S3Options()))

    def stop(done: int, _total: int, _note: str = "") -> None:
        if done == 6:
            raise KeyboardInterrupt

    written = training.root / "second-1" / "checkpoints"
    with pytest.raises(KeyboardInterrupt):
        finetune(
            resolve_task(spec), training.data, training.root / "alone", checkpoints=written, progress=stop
        )
    shutil.copytree(written, training.root / "second-0" / "checkpoints")
    for folder in (training.root / "second-0" / "checkpoints").glob("checkpoint-*"):
        (folder / "trainer_state.json").unlink()
    assert all("different steps" in str(ended) for ended in nodes.run(spec, "second"))
