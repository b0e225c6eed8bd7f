"""A tiny base, a task file on it, and trials of it."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click.testing
import pytest
import torch
import yaml
from transformers.utils import logging as transformers_logging

from lorry_components.steps.evaluate.evaluation_report import PREDICTIONS_NAME
from lorry_components.steps.runtime.outcomes import Failure
from lorry_components.studies.study_summary import TrialOutcome
from lorry_components.studies.trial_run import run_trial
from lorry_components.studies.trials import (
    PeakMemory,
    PreparedData,
    Training,
    Trial,
    TrialResult,
    lay_out_trials,
)
from lorry_components.studies.variants import (
    TaskDocument,
    Variant,
    build_variants,
    draft_method,
    parse_methods,
)
from lorry_components.task_types import TASK_TYPES, TextClassification
from lorry_components.training.precision import Hardware
from lorry_pipelines.cli import lorry
from lorry_registry.errors import LorryError
from lorry_registry.manifest import Evaluation, MetricValue, ParameterCounts

FINGERPRINT = "sha256:" + "0" * 64
PROCESSOR = Hardware("cpu", "a processor", has_bf16=False, has_fp16=False)


@pytest.fixture(autouse=True, scope="session")
def calm_libraries() -> None:
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("mlflow").setLevel(logging.ERROR)


@pytest.fixture
def task_file(tiny_bert: Path, tiny_rows: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a task file; sections that are given are laid over it."""

    def write(**sections: Any) -> Path:
        document: dict[str, Any] = {
            "name": "tiny",
            "kind": "text-classification",
            "base": {"model": str(tiny_bert)},
            "data": {
                "source": str(tiny_rows),
                "split": {"validation": 0.2, "test": 0.3},
                "max_length": 32,
            },
            "method": {"name": "lora", "r": 4, "targets": ["query", "value"]},
            "train": {"steps": 4, "batch_size": 8, "precision": "fp32", "learning_rate": 0.01},
            "evaluate": {"resamples": 200, "metrics": ["accuracy"]},
        }
        for name, given in sections.items():
            is_merged = name != "method" and isinstance(document.get(name), dict)
            document[name] = document[name] | given if is_merged else given
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(document), "utf-8")
        return path

    return write


@pytest.fixture
def compare(task_file: Callable[..., Path]) -> Callable[..., list[Variant]]:
    """Return a function from a list of methods to variants of the tiny task."""

    def build(methods: str, overrides: tuple[str, ...] = (), **sections: Any) -> list[Variant]:
        task = TaskDocument.load(task_file(**sections), overrides)
        choices, faults = parse_methods(methods)
        return build_variants(task, [draft_method(choice, task) for choice in choices], faults)

    return build


@pytest.fixture
def lay_out(tmp_path: Path) -> Callable[..., list[Trial]]:
    """Return a function from variants to trials, on data that nobody prepared."""

    def build(
        variants: list[Variant], seeds: tuple[int, ...] = (0,), *, hardware: Hardware = PROCESSOR
    ) -> list[Trial]:
        data = PreparedData(tmp_path / "data", "sha256:" + "1" * 64)
        return lay_out_trials(
            variants,
            seeds,
            data={variant.label: data for variant in variants},
            fingerprint=FINGERPRINT,
            hardware=hardware,
        )

    return build


class Runner:
    """The command line in a folder of its own; trials run in this process, and are counted."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ran: list[str] = []

    def __call__(self, *arguments: object) -> click.testing.Result:
        self.ran.clear()
        return click.testing.CliRunner().invoke(lorry, [str(argument) for argument in arguments])

    def run_trials(
        self, trials: Sequence[Trial], root: Path, *, finished: Callable[[TrialOutcome], None], **_: Any
    ) -> None:
        for trial in trials:
            self.ran.append(trial.name)
            folder = trial.open(root)
            folder.write_job(trial.job)
            try:
                finished(TrialOutcome(trial, folder, run_trial(folder)))
            except LorryError as error:
                finished(TrialOutcome(trial, folder, None, error=str(error)))


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runner:
    runner = Runner(tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORRY_HOME", str(runner.home))
    # No MLflow can be there.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    monkeypatch.setattr("lorry_pipelines.studies.study_run.run_trials", runner.run_trials)
    return runner


class Cloze(TextClassification):
    """A classification that reads a template, and takes the head for a part of the base."""

    name = "cloze"

    @classmethod
    def check_template(cls, template: str | None, *, has_pair: bool) -> Iterator[str]:  # noqa: ARG003
        if template is None or "{text}" not in template:
            yield "write {text} into it"

    def load_model(self, *arguments: Any, **options: Any) -> Any:
        model, _ = super().load_model(*arguments, **options)
        return model, frozenset()


@pytest.fixture
def cloze(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a kind that reads templates and has no head of its own."""
    monkeypatch.setitem(TASK_TYPES, Cloze.name, Cloze)  # type: ignore[arg-type]
    return Cloze.name


def make_training(parameters: int, **changes: Any) -> Training:
    """Return what a training took."""
    values: dict[str, Any] = {
        "parameters": ParameterCounts(adapter=parameters, head=99, total=20_000),
        "learning_rate": 0.01,
        "adapter_bytes": 4 * parameters,
        "seconds": 2.0,
        "peak_memory": PeakMemory(size_bytes=300 << 20, place="process"),
        "device": "a processor",
        "precision": "fp32",
        "steps": 4,
        "resumed_from": 0,
        "loss": 0.5,
        "libraries": {},
    }
    return Training(**values | changes)


def make_result(
    parameters: int, seed: int = 0, *, is_trained: bool = True, rate: float = 0.01
) -> TrialResult:
    """Return the result of a trial; its metrics are those of its predictions."""
    return TrialResult(
        seed=seed,
        training=make_training(parameters, learning_rate=rate) if is_trained else None,
        evaluation=Evaluation(
            split="test",
            examples=1,
            primary="accuracy",
            metrics={"accuracy": MetricValue(value=0.5, low=0.4, high=0.6)},
        ),
        evaluation_seconds=1.0,
    )


@pytest.fixture
def conclude(tmp_path: Path) -> Callable[..., TrialOutcome]:
    """Return a function that writes what a trial predicted: which rows are right is given."""

    def write(
        trial: Trial, right: Sequence[bool], parameters: int = 1000, *, error: str = "", rate: float = 0.01
    ) -> TrialOutcome:
        folder = trial.open(tmp_path / "cells")
        folder.evaluation.mkdir(parents=True, exist_ok=True)
        if error:
            folder.write_failure(Failure(error="TrainingError", message=error, exit_code=10))
            return TrialOutcome(trial, folder, None, error=error)
        lines = [
            {"text": f"row {number}", "label": "yes", "prediction": _predict("yes" if is_right else "no")}
            for number, is_right in enumerate(right)
        ]
        path = folder.evaluation / PREDICTIONS_NAME
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
        result = make_result(parameters, trial.seed, is_trained=trial.variant.is_trained, rate=rate)
        folder.write_result(result)
        return TrialOutcome(trial, folder, result)

    return write


def _predict(label: str) -> dict[str, Any]:
    return {"label": label, "score": 0.9, "scores": {"yes": 0.5, "no": 0.5}}
