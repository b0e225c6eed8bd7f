"""The fitted head beside scikit-learn's logistic regression: the same rows, penalties and accuracy.

Both fit a head to 10,000 rows of 77 classes, 384 features, once for each of the penalties that the search of
:mod:`lorry_components.training.probe.head_fitting` tries on them, each from the solution before it. The
features are drawn: one centre a class, and noise whose directions differ in size a hundredfold, as those of
embeddings do.

    python tests/benchmarks/bench_head_fitting.py [--rows 10000] [--classes 77] [--width 384]
"""

import argparse
import time
import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from lorry_components.training.probe.head_fitting import PENALTIES, compute_outputs, fit_classes

Features = NDArray[np.float32]
Classes = NDArray[np.intp]


def draw_rows(rows: int, centres: Features, draw: np.random.Generator) -> tuple[Features, Classes]:
    """Return features on the unit sphere, as a sentence encoder's, and the class of each."""
    classes = draw.integers(len(centres), size=rows)
    sizes = np.geomspace(1.0, 0.01, centres.shape[1])
    features = centres[classes] + draw.normal(size=(rows, centres.shape[1])) * sizes
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), classes


def measure_loss(outputs: Features, classes: Classes) -> float:
    """Return the mean cross-entropy."""
    wide = outputs.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    losses = np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(classes)), classes]
    return float(losses.mean())


def search_with_scikit_learn(
    train: Features,
    targets: Classes,
    validation: Features,
    truth: Classes,
    *,
    tolerance: float,
) -> tuple[float, float]:
    """Do the same search with scikit-learn; return the loss and the accuracy of the best penalty."""
    mean = train.mean(axis=0)
    size = np.sqrt(np.square(train - mean).mean())
    scaled, held_out = (train - mean) / size, (validation - mean) / size
    best, accuracy, waited = np.inf, 0.0, 0
    model = LogisticRegression(tol=tolerance, max_iter=200, warm_start=True)
    for penalty in PENALTIES:
        model.set_params(C=1 / (penalty * len(train)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(scaled, targets)
        loss = measure_loss(model.decision_function(held_out), truth)
        waited = 0 if loss < best else waited + 1
        if loss < best:
            best, accuracy = loss, float(model.score(held_out, truth))
        if waited == 3:
            break
    return best, accuracy


def main() -> None:
    """Print both, and the ratio of the seconds of processors that they took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=77)
    parser.add_argument("--width", type=int, default=384)
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(options.classes, options.width)) * np.geomspace(0.4, 0.004, options.width)
    train, targets = draw_rows(options.rows, centres.astype(np.float32), draw)
    validation, truth = draw_rows(options.rows // 5, centres.astype(np.float32), draw)
    started = time.process_time()
    head = fit_classes(train, targets.tolist(), options.classes, validation, truth.tolist())
    own = time.process_time() - started
    right = float((compute_outputs(validation, head.weight, head.bias).argmax(axis=1) == truth).mean())
    print(f"lorry: {own:.1f} s, loss {head.loss:.4f}, accuracy {right:.4f}, penalty {head.penalty:.2g}")
    for tolerance in (1e-4, 1e-3):
        started = time.process_time()
        loss, accuracy = search_with_scikit_learn(train, targets, validation, truth, tolerance=tolerance)
        seconds = time.process_time() - started
        print(
            f"scikit-learn, tol {tolerance:g}: {seconds:.1f} s, loss {loss:.4f}, accuracy {accuracy:.4f}, "
            f"ratio {seconds / own:.2f}"
        )


if __name__ == "__main__":
    main()
