"""The learning curve: passed on, kept, continued after an interruption, and thin enough for a report."""

import json
from collections.abc import Mapping
from pathlib import Path

from lorry_components.steps.finetune.learning_curve import CurveLog, LearningCurve


def test_metrics_are_passed_on_and_those_of_the_curve_are_kept(tmp_path: Path) -> None:
    passed: list[tuple[Mapping[str, float], int]] = []
    log = CurveLog(lambda metrics, step: passed.append((metrics, step)), "accuracy")
    state = tmp_path / "trainer_state.json"
    history = [{"step": 5, "loss": 0.9}, {"step": 10, "eval_accuracy": 0.6, "eval_loss": 1.0}]
    state.write_text(json.dumps({"log_history": history}))
    log.take_over(state)
    log({"train/loss": 0.5, "train/grad_norm": 3.0}, 15)
    log({"validation/accuracy": 0.8}, 20)
    assert [step for _, step in passed] == [15, 20]
    curve = LearningCurve.model_validate(log.describe())
    assert curve == LearningCurve(
        metric="accuracy", losses=((5, 0.9), (15, 0.5)), scores=((10, 0.6), (20, 0.8))
    )


def test_a_long_training_leaves_some_points_with_both_ends() -> None:
    log = CurveLog(lambda _metrics, _step: None, "accuracy")
    for step in range(1, 2001):
        log({"train/loss": 1.0 / step}, step)
    losses = LearningCurve.model_validate(log.describe()).losses
    assert len(losses) == 60
    assert (losses[0], losses[-1]) == ((1, 1.0), (2000, 0.0005))
    assert LearningCurve.model_validate(CurveLog(lambda _m, _s: None, "rmse").describe()).scores == ()
