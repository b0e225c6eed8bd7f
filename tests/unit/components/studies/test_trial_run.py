"""A trial, from its job to its result: trained and evaluated for real, interrupted, failed, untrained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.data.prepared import load_labels
from lorry_components.steps.evaluate.evaluation_report import PREDICTIONS_NAME
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.studies import trial_run
from lorry_components.studies.prompt_grid import draft_prompts
from lorry_components.studies.trial_process import main
from lorry_components.studies.trial_run import evaluate_untrained, read_history, run_trial
from lorry_components.studies.trials import Part, PreparedData, Trial, TrialFolder, lay_out_trials
from lorry_components.studies.variants import TaskDocument, Variant, build_variants
from lorry_components.tasks.resolution import ResolvedTask, resolve_task
from lorry_components.training.setup.precision import Hardware, detect_hardware
from lorry_registry.errors import TrainingError

Compare = Callable[..., list[Variant]]
LayOut = Callable[..., list[Trial]]
FINGERPRINT = "sha256:" + "0" * 64


@pytest.fixture
def open_trial(tmp_path: Path) -> Callable[..., TrialFolder]:
    """Return a function that prepares a variant's data and writes the job of its trial."""

    def build(variant: Variant, name: str = "cells", part: Part = "validation") -> TrialFolder:
        folder = tmp_path / "prepared"
        if not folder.exists():
            prepare_data(resolve_task(variant.spec), folder)
        (trial,) = lay_out_trials(
            [variant],
            [0],
            data={variant.label: PreparedData(folder, "d")},
            part=part,
            fingerprint=FINGERPRINT,
            hardware=detect_hardware(),
        )
        opened = trial.open(tmp_path / name)
        opened.write_job(trial.job)
        return opened

    return build


def read_predictions(folder: TrialFolder) -> list[Any]:
    lines = (folder.evaluation / PREDICTIONS_NAME).read_text("utf-8").splitlines()
    return [json.loads(line)["prediction"] for line in lines]


def test_a_cell_is_trained_and_evaluated(compare: Compare, open_trial: Callable[..., TrialFolder]) -> None:
    folder = open_trial(*compare("lora"))
    assert folder.read_result() is None
    seen: list[int] = []

    def watch(done: int, total: int, note: str = "") -> None:
        seen.append(done)

    result = run_trial(folder, progress=watch)
    assert folder.read_result() == result
    training = result.training
    assert training is not None
    assert training.parameters.adapter == 4 * 2 * 2 * 64
    assert training.parameters.head == 3 * 32 + 3
    assert training.seconds is not None
    assert training.seconds > 0
    assert training.peak_memory.size_bytes > 50 << 20
    assert training.adapter_bytes > 4 * 1024
    assert result.evaluation.primary == "accuracy"
    assert len(read_predictions(folder)) == result.evaluation.examples
    assert seen == sorted(seen)
    assert seen[-1] == 1000
    assert [step for step, metrics in read_history(folder.history) if "train/loss" in metrics]
    # Only what the comparison needs is kept.
    assert not folder.candidate.exists()
    assert not folder.checkpoints.exists()


def test_an_interrupted_training_goes_on(compare: Compare, open_trial: Callable[..., TrialFolder]) -> None:
    (variant,) = compare("lora", ("train.steps=8",))
    folder = open_trial(variant)

    def interrupt(done: int, total: int, note: str = "") -> None:
        if done > 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(folder, progress=interrupt)
    assert folder.read_result() is None
    # A kill would have left half a line, and with it half of a letter.
    with folder.history.open("ab") as stream:
        stream.write('{"step": 9, "metrics": {"é'.encode()[:-1])
    kept = list(read_history(folder.history))
    assert kept
    result = run_trial(folder)
    history = list(read_history(folder.history))
    assert history[: len(kept)] == kept
    assert history[len(kept)][0] > 0
    assert max(step for step, _ in history) == 8
    assert result.training is not None
    assert 0 < result.training.resumed_from < 8
    assert result.training.seconds is not None
    whole = open_trial(variant, "others")
    run_trial(whole)
    assert read_predictions(folder) == read_predictions(whole)


def test_an_interrupted_evaluation_trains_nothing_again(
    compare: Compare, open_trial: Callable[..., TrialFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_trial(*compare("lora"))

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(trial_run, "evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_trial(folder)
    monkeypatch.setattr(trial_run, "finetune", interrupt)
    result = run_trial(folder)
    assert result.training is not None
    assert result.training.resumed_from == 0


def test_a_failure_is_kept(compare: Compare, open_trial: Callable[..., TrialFolder]) -> None:
    (variant,) = compare("lora:max_adapter_mib=0.001")
    folder = open_trial(variant)
    assert main(folder.path) == TrainingError.exit_code
    failure = folder.read_failure()
    assert failure is not None
    assert "above the limit of 0.001 MiB" in failure.message
    assert folder.read_result() is None
    # Started again, the trial is tried again.
    folder.write_job(folder.read_job())
    assert folder.read_failure() is None


def test_what_cannot_be_read_any_more_is_not_done(
    compare: Compare, lay_out: LayOut, conclude: Callable[..., Any]
) -> None:
    first, second = lay_out(compare("lora,bitfit"))
    folder = conclude(first, [True]).folder
    assert folder.read_result() is not None
    folder.predictions.unlink()
    assert folder.read_result() is None
    folder = conclude(second, [True]).folder
    (folder.path / "result.json").write_text('{"of": "another version"}')
    assert folder.read_result() is None


def test_a_process_writes_the_result(compare: Compare, open_trial: Callable[..., TrialFolder]) -> None:
    folder = open_trial(*compare("bitfit"))
    assert main(folder.path) == 0
    assert folder.read_result() is not None
    assert json.loads((folder.path / "progress.json").read_text()) == {
        "step": "cell",
        "done": 1000,
        "total": 1000,
        "note": "",
    }


@pytest.fixture
def wordings(task_file: Callable[..., Path], cloze: str) -> list[Variant]:
    task = TaskDocument.load(task_file(kind=cloze, data={"template": "{text}"}))
    return build_variants(task, draft_prompts(task, ["{text} is good", "{text} is bad"], []))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_the_rows_that_were_asked_for_are_scored(
    compare: Compare, open_trial: Callable[..., TrialFolder], part: Part
) -> None:
    folder = open_trial(*compare("lora"), part=part)
    evaluation = run_trial(folder).evaluation
    labels = load_labels(folder.read_job().data, part)
    assert (evaluation.split, evaluation.examples) == (part, len(labels))
    lines = (folder.evaluation / PREDICTIONS_NAME).read_text("utf-8").splitlines()
    assert [json.loads(line)["label"] for line in lines] == labels


def test_a_base_answers_untrained(wordings: list[Variant], open_trial: Callable[..., TrialFolder]) -> None:
    folder = open_trial(wordings[0])
    result = run_trial(folder)
    assert result.training is None
    assert len(read_predictions(folder)) == result.evaluation.examples


def test_a_kind_may_bring_its_own_way_to_score_untrained(
    wordings: list[Variant], open_trial: Callable[..., TrialFolder]
) -> None:
    seen: list[Path] = []

    def score(task: ResolvedTask, data: Path, target: Path, *, part: Any, progress: Any) -> Any:
        seen.append(target)
        return evaluate_untrained(task, data, target, part=part, progress=progress)

    folder = open_trial(wordings[1])
    run_trial(folder, untrained=score)
    assert seen == [folder.evaluation]


def test_a_random_head_is_not_asked_untrained(
    compare: Compare, open_trial: Callable[..., TrialFolder]
) -> None:
    (variant,) = compare("lora")
    folder = open_trial(variant)
    job = folder.read_job()
    with pytest.raises(TrainingError, match="random before it is trained"):
        evaluate_untrained(resolve_task(job.spec), job.data, folder.evaluation, part=job.part)


def test_untrained_cells_of_one_wording_are_the_same_cell(wordings: list[Variant], lay_out: LayOut) -> None:
    first, second = lay_out(wordings, (0, 1))
    assert first.digest != second.digest
    assert first.name == "1 untrained"
    again = Variant("other", wordings[0].spec.model_copy(update={"name": "other"}), is_trained=False)
    assert lay_out([again])[0].digest == first.digest


def test_cells_are_named_by_all_that_decides_their_result(compare: Compare, lay_out: LayOut) -> None:
    trials = lay_out(compare("lora,bitfit"), (0, 1))
    assert [trial.name for trial in trials] == [
        "lora, seed 0",
        "bitfit, seed 0",
        "lora, seed 1",
        "bitfit, seed 1",
    ]
    assert len({trial.digest for trial in trials}) == 4
    assert [trial.spec.train.seed for trial in trials] == [0, 0, 1, 1]
    # Only the decisions count, not what they are called or judged by.
    renamed = compare("lora", ("evaluate.resamples=500", "owner=somebody"))
    assert lay_out(renamed)[0].digest == trials[0].digest
    on_test = lay_out(compare("lora,bitfit"), (0, 1), part="test")
    assert not {trial.digest for trial in on_test} & {trial.digest for trial in trials}


def test_another_device_precision_or_library_makes_another_cell(
    compare: Compare, lay_out: LayOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = compare("lora", ("train.precision=auto",))
    others = [
        lay_out(variants),
        lay_out(variants, hardware=Hardware("cpu", "a processor", has_bf16=True, has_fp16=False)),
        lay_out(variants, hardware=Hardware("cuda", "a GPU", has_bf16=True, has_fp16=True)),
    ]
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"{name} of tomorrow")
    others.append(lay_out(variants))
    assert len({trial.digest for (trial,) in others}) == 4


def test_a_precision_that_the_device_lacks_is_left_to_the_cell(compare: Compare, lay_out: LayOut) -> None:
    assert lay_out(compare("lora", ("train.precision=fp16",)))
