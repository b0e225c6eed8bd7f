"""How long a training is where its task says so, and where it leaves that to the number of rows."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorry_components.training.setup.length import LEAST_STEPS, Length, choose_length
from lorry_registry.tasks.task_spec import TrainSpec


@pytest.mark.parametrize(
    ("train", "rows", "length"),
    [
        ({"epochs": 3}, 50, Length(32, 6, 3.0)),
        ({"epochs": 1.5}, 64, Length(32, 3, 1.5)),
        ({"steps": 7}, 50, Length(32, 7, None)),
        # Many rows: three epochs.
        ({}, 8_000, Length(32, 750, 3.0)),
        ({}, 1_057, Length(32, 102, 3.0)),
        # Fewer: smaller batches.
        ({}, 1_056, Length(8, 396, 3.0)),
        ({}, 265, Length(8, 102, 3.0)),
        # Very few: more than three epochs.
        ({}, 264, Length(8, LEAST_STEPS, None)),
        ({}, 1, Length(8, LEAST_STEPS, None)),
        # What the task says of batches is their largest size.
        ({"batch_size": 4}, 100, Length(4, LEAST_STEPS, None)),
        ({"batch_size": 4}, 1_000, Length(4, 750, 3.0)),
        ({"gradient_accumulation": 4}, 1_000, Length(8, LEAST_STEPS, None)),
    ],
)
def test_the_length_is_the_tasks_or_what_its_rows_need(
    train: dict[str, Any], rows: int, length: Length
) -> None:
    assert choose_length(TrainSpec.model_validate(train), rows) == length


@given(rows=st.integers(1, 3_000), processes=st.sampled_from([1, 2, 3, 5, 8, 16, 32]))
def test_a_batch_is_divided_among_the_processes(rows: int, processes: int) -> None:
    size = 32 - 32 % processes
    length = choose_length(TrainSpec(batch_size=size), rows, processes=processes)
    assert length.batch_size % processes == 0
    assert length.batch_size <= size
    assert length.steps >= LEAST_STEPS
