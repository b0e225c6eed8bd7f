"""Linear models: what they find is what other libraries find, and strengths are chosen on validation."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from lorry_components.training.probe import head_fitting
from lorry_components.training.probe.feature_cache import FeatureCache, Fill
from lorry_components.training.probe.head_fitting import fit_classes, fit_numbers


def draw(rows: int, width: int = 6, seed: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    # Far from zero, and of another size than 1.
    return (generator.normal(size=(rows, width)) * 3 + 7).astype(np.float32)


def test_classes_are_fitted_as_by_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_fitting, "PENALTIES", (0.01,))
    # So small blocks that there are several.
    monkeypatch.setattr(head_fitting, "_BLOCK_ROWS", 50)
    features = draw(300)
    generator = np.random.default_rng(1)
    outputs = (features - 7) @ generator.normal(size=(6, 3)) + generator.gumbel(size=(300, 3)) * 2
    targets = outputs.argmax(axis=1)
    head = fit_classes(features, targets.tolist(), 3, features, targets.tolist())
    size = float(np.sqrt(np.mean((features - features.mean(axis=0)) ** 2)))
    scaled = (features - features.mean(axis=0)) / size
    # Its penalty is for the sum of the losses, and not for their mean.
    known = LogisticRegression(C=1 / (0.01 * 300), tol=1e-8, max_iter=5000).fit(scaled, targets)
    shares = np.exp(head.compute(features) - head.compute(features).max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, known.predict_proba(scaled), atol=2e-3)


def test_numbers_are_fitted_as_by_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_fitting, "PENALTIES", (0.1,))
    monkeypatch.setattr(head_fitting, "_BLOCK_ROWS", 70)
    features = draw(200)
    targets = features @ np.arange(6) * 1000 + 250_000
    head = fit_numbers(features, targets.tolist(), features, targets.tolist())
    size = float(np.sqrt(np.mean((features - features.mean(axis=0)) ** 2)))
    known = Ridge(alpha=0.1 * 200).fit((features - features.mean(axis=0)) / size, targets)
    expected = known.predict((features - features.mean(axis=0)) / size)
    np.testing.assert_allclose(head.compute(features)[:, 0], expected, rtol=1e-5)


def test_the_strength_is_the_best_on_validation() -> None:
    generator = np.random.default_rng(3)
    features, held_out = draw(40, 30), draw(400, 30, seed=9)
    weight = generator.normal(size=30)
    targets = features @ weight + generator.normal(size=40) * 5
    truth = held_out @ weight
    chosen = fit_numbers(features, targets.tolist(), held_out, truth.tolist())
    losses = {}
    for penalty in head_fitting.PENALTIES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(head_fitting, "PENALTIES", (penalty,))
            losses[penalty] = fit_numbers(features, targets.tolist(), held_out, truth.tolist()).loss
    assert chosen.penalty == min(losses, key=losses.__getitem__)
    assert 1e-6 < chosen.penalty < 10.0


def test_the_same_rows_give_the_same_bytes() -> None:
    features = draw(100)
    targets = [int(value > 7) for value in features[:, 0]]
    one, other = (fit_classes(features, targets, 2, features, targets) for _ in range(2))
    assert one.weight.tobytes() == other.weight.tobytes()
    assert one.bias.tobytes() == other.bias.tobytes()


def test_features_that_do_not_vary_are_no_fault() -> None:
    features = np.ones((10, 3), dtype=np.float32)
    head = fit_classes(features, [0, 1] * 5, 2, features, [0, 1] * 5)
    np.testing.assert_allclose(head.compute(features), 0.0, atol=1e-5)


# The cache


def fill(value: float, calls: list[float]) -> Fill:
    def write(target: NDArray[np.float32]) -> None:
        calls.append(value)
        target[:] = value

    return write


def test_features_are_computed_once(tmp_path: Path) -> None:
    cache, calls = FeatureCache(tmp_path / "features"), list[float]()
    for _ in range(2):
        assert cache.fetch("a", (3, 2), fill(1.5, calls)).tolist() == [[1.5, 1.5]] * 3
    assert calls == [1.5]
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["a"]


@pytest.mark.parametrize("damage", ["byte", "length", "other"])
def test_damaged_features_are_computed_again(tmp_path: Path, damage: str) -> None:
    cache, calls = FeatureCache(tmp_path), list[float]()
    cache.fetch("a", (3, 2), fill(1.0, calls))
    path = tmp_path / "a"
    content = bytearray(path.read_bytes())
    if damage == "byte":
        content[-1] ^= 1
    elif damage == "length":
        del content[-4:]
    else:
        # Sound, but in the place of another.
        cache.fetch("b", (3, 2), fill(2.0, calls))
        content = bytearray((tmp_path / "b").read_bytes())
    path.unlink()
    path.write_bytes(bytes(content))
    assert cache.fetch("a", (3, 2), fill(3.0, calls)).tolist() == [[3.0, 3.0]] * 3
    assert calls[-1] == 3.0


def test_the_least_recently_used_features_make_room(tmp_path: Path) -> None:
    cache, calls = FeatureCache(tmp_path, limit=150), list[float]()
    for number, name in enumerate("abc"):
        cache.fetch(name, (3, 2), fill(1.0, calls))
        os.utime(tmp_path / name, (number, number))
    cache.fetch("d", (3, 2), fill(1.0, calls))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "d"]


def test_a_folder_that_cannot_be_written_only_makes_it_slower(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", "utf-8")
    calls = list[float]()
    assert FeatureCache(blocked).fetch("a", (1, 1), fill(4.0, calls)).tolist() == [[4.0]]
    assert blocked.read_text("utf-8") == ""


def test_a_failure_while_features_are_computed_leaves_nothing(tmp_path: Path) -> None:
    def fail(_target: NDArray[np.float32]) -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        FeatureCache(tmp_path).fetch("a", (1, 1), fail)
    assert list(tmp_path.iterdir()) == []
