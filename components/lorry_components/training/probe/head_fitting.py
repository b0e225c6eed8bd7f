"""Linear models on features: multinomial logistic regression, and ridge regression in closed form.

How strongly weights are drawn to zero is chosen by the loss on the validation rows, from strong to weak, and
the search ends when that stops helping. Features are centred and divided by one number, so that the same
strengths suit every base; the weights that come out are for the features as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorry_components.training.probe.feature_cache import Features

Numbers = NDArray[np.float64]
Judge = Callable[[NDArray[np.float32]], float]
"""Returns the loss of outputs for the validation rows, shape (rows, outputs)."""

PENALTIES = tuple(10.0 ** (-step / 2) for step in range(-2, 13))
"""The strengths that are tried, as shares of the mean squared feature: from 10 to a millionth."""

# Strengths in a row that do not help before the search ends.
_PATIENCE = 3
_ITERATIONS = 200
# A gain in the mean loss below this is none.
_TOLERANCE = 1e-6
# Rows in one product: memory does not grow with the data.
_BLOCK_ROWS = 8192


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A linear layer.

    Attributes:
        weight: Shape (outputs, width).
        bias: Shape (outputs,).
        penalty: The strength that was chosen, one of :data:`PENALTIES`.
        loss: Its mean loss on the validation rows: cross-entropy, or the squared error.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    penalty: float
    loss: float

    def compute(self, features: Features) -> NDArray[np.float32]:
        """Return the outputs for features, shape (rows, outputs)."""
        return compute_outputs(features, self.weight, self.bias)


def fit_classes(
    train: Features, targets: Sequence[int], classes: int, validation: Features, truth: Sequence[int]
) -> FittedHead:
    """Fit multinomial logistic regression by L-BFGS.

    The loss is the mean cross-entropy, and half of the penalty times the sum of the squared weights; the bias
    is free.

    Args:
        train: Features of the training rows, shape (rows, width).
        targets: The number of the class of each.
        classes: How many classes there are.
        validation: Features of the validation rows.
        truth: The number of the class of each.
    """
    from scipy.optimize import fmin_l_bfgs_b

    frame = _Frame.of(train)
    numbers = np.asarray(targets)
    width = train.shape[1]
    start: Numbers = np.zeros(classes * (width + 1))

    def propose() -> Iterator[tuple[float, Numbers, Numbers]]:
        solution = start
        for penalty in PENALTIES:
            solution, _, _ = fmin_l_bfgs_b(
                lambda flat, penalty=penalty: _measure_loss(flat, frame, train, numbers, classes, penalty),
                solution,
                maxiter=_ITERATIONS,
                factr=_TOLERANCE / np.finfo(float).eps,
                pgtol=1e-5,
            )
            shaped = solution.reshape(classes, width + 1)
            yield penalty, shaped[:, :width], shaped[:, width]

    held_out = np.asarray(truth)

    return _choose(propose(), frame, validation, lambda outputs: _average(_list_losses(outputs, held_out)))


def fit_numbers(
    train: Features, targets: Sequence[float], validation: Features, truth: Sequence[float]
) -> FittedHead:
    """Fit ridge regression in closed form.

    Args:
        train: Features of the training rows, shape (rows, width).
        targets: The number of each.
        validation: Features of the validation rows.
        truth: The number of each.
    """
    frame = _Frame.of(train)
    numbers = np.asarray(targets, dtype=np.float64)
    mean = float(numbers.mean())
    squares: Numbers = np.zeros((train.shape[1], train.shape[1]))
    products: Numbers = np.zeros(train.shape[1])
    for rows in _list_blocks(len(train)):
        block = frame.apply(train[rows]).astype(np.float64)
        squares += block.T @ block
        products += block.T @ (numbers[rows] - mean)
    values, vectors = np.linalg.eigh(squares / len(train))
    projected = vectors.T @ (products / len(train))

    def propose() -> Iterator[tuple[float, Numbers, Numbers]]:
        for penalty in PENALTIES:
            weight = vectors @ (projected / (np.maximum(values, 0.0) + penalty))
            yield penalty, weight[None], np.asarray([mean])

    held_out = np.asarray(truth, dtype=np.float64)

    return _choose(
        propose(), frame, validation, lambda outputs: _average(np.square(outputs[:, 0] - held_out))
    )


def compute_outputs(features: Features, weight: NDArray[Any], bias: NDArray[Any]) -> NDArray[np.float32]:
    """Return a linear layer's outputs, shape (rows, outputs)."""
    outputs: NDArray[np.float32] = np.empty((len(features), len(bias)), dtype=np.float32)
    for rows in _list_blocks(len(features)):
        outputs[rows] = features[rows] @ weight.T.astype(np.float32) + bias.astype(np.float32)
    return outputs


@dataclass(frozen=True, slots=True)
class _Frame:
    """The place and size of features: less their mean, and divided by the root of their mean square."""

    mean: NDArray[np.float32]
    size: float

    @classmethod
    def of(cls, features: Features) -> "_Frame":
        total: Numbers = np.zeros(features.shape[1])
        for rows in _list_blocks(len(features)):
            total += features[rows].sum(axis=0, dtype=np.float64)
        mean = (total / len(features)).astype(np.float32)
        squares = sum(
            float(np.square(features[rows] - mean, dtype=np.float64).sum())
            for rows in _list_blocks(len(features))
        )
        size = (squares / features.size) ** 0.5
        return cls(mean, size if size > 0 else 1.0)

    def apply(self, features: Features) -> NDArray[np.float32]:
        return (features - self.mean) / np.float32(self.size)

    def undo(self, weight: Numbers, bias: Numbers) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the layer that does to features as they are what another does in this frame."""
        plain = weight / self.size
        return plain.astype(np.float32), (bias - plain @ self.mean).astype(np.float32)


def _average(losses: NDArray[Any]) -> float:
    # Without validation rows the strongest penalty is kept.
    return float(np.mean(losses)) if len(losses) else 0.0


def _list_losses(outputs: NDArray[np.float32], targets: NDArray[np.intp]) -> Numbers:
    """Return the cross-entropy of each row."""
    wide = outputs.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    losses: Numbers = np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(targets)), targets]
    return losses


def _measure_loss(
    flat: Numbers, frame: _Frame, features: Features, targets: NDArray[np.intp], classes: int, penalty: float
) -> tuple[float, Numbers]:
    """Return the loss of a layer, and its gradient."""
    width = features.shape[1]
    shaped = flat.reshape(classes, width + 1)
    weight, bias = shaped[:, :width].astype(np.float32), shaped[:, width].astype(np.float32)
    gradient: Numbers = np.zeros((classes, width + 1))
    loss = 0.0
    for rows in _list_blocks(len(features)):
        block, truth = frame.apply(features[rows]), targets[rows]
        outputs = block @ weight.T + bias
        outputs -= outputs.max(axis=1, keepdims=True)
        shares = np.exp(outputs)
        totals = shares.sum(axis=1, keepdims=True)
        number = np.arange(len(truth))
        loss += float((np.log(totals[:, 0]) - outputs[number, truth]).sum(dtype=np.float64))
        shares /= totals
        shares[number, truth] -= 1.0
        gradient[:, :width] += shares.T @ block
        gradient[:, width] += shares.sum(axis=0)
    gradient /= len(features)
    gradient[:, :width] += penalty * shaped[:, :width]
    half = 0.5 * penalty * float(np.square(shaped[:, :width]).sum())
    return loss / len(features) + half, gradient.ravel()


def _choose(
    proposals: Iterator[tuple[float, Numbers, Numbers]], frame: _Frame, validation: Features, judge: Judge
) -> FittedHead:
    best: FittedHead | None = None
    waited = 0
    for penalty, weight, bias in proposals:
        plain, shifted = frame.undo(weight, bias)
        loss = judge(compute_outputs(validation, plain, shifted))
        # Of equals the stronger penalty is kept, which comes first.
        if best is None or loss < best.loss:
            best, waited = FittedHead(plain, shifted, penalty, loss), 0
        else:
            waited += 1
            if waited == _PATIENCE:
                break
    if best is None:
        raise RuntimeError("no strength was tried")
    return best


def _list_blocks(rows: int) -> list[slice]:
    return [slice(start, start + _BLOCK_ROWS) for start in range(0, rows, _BLOCK_ROWS)]
