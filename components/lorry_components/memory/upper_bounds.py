"""Upper bounds from a base's sizes, without torch: memory that suffices for any method."""

from collections.abc import Mapping
from typing import Any

from lorry_components.models.dimensions import Dimensions, read_dimensions
from lorry_components.task_types import TASK_TYPES
from lorry_components.task_types.text_task import TextTaskType
from lorry_components.tasks.definition import find_task_type
from lorry_registry.tasks.task_spec import TaskSpec
from lorry_registry.text.sizes import GIB

# Weights, gradients, two moments and a copy, each in fp32.
_BYTES_A_PARAMETER = 20
_SLACK = 1.1
# What the allocator keeps of a pass is far more.
_PASSING_SLACK = 1.8
_RUNTIME = int(1.25 * GIB)


def bound_training(spec: TaskSpec, configuration: Mapping[str, Any]) -> int | None:
    """Return bytes that suffice for training in fp32, or None if no bound is known.

    Every weight counts as trained.
    """
    dimensions = read_dimensions(configuration)
    if dimensions is None or any("expert" in name for name in configuration) or spec.kind not in TASK_TYPES:
        return None
    return find_task_type(spec).match_family(
        text=lambda text: _bound_text_training(spec, text, dimensions, configuration),
        # The sizes of a UNet are others.
        diffusion=lambda _: None,
    )


def _bound_text_training(
    spec: TaskSpec, task_type: TextTaskType, dimensions: Dimensions, configuration: Mapping[str, Any]
) -> int:
    soft = spec.method.options.get("tokens")
    tokens = spec.data.max_length + (soft if isinstance(soft, int) else 0)
    tokens = max(tokens, task_type.count_written_tokens())
    passing = bound_activations(dimensions, configuration, rows=spec.train.batch_size, tokens=tokens)
    # The output, its softmax and its gradient.
    passing += 3 * 4 * spec.train.batch_size * tokens * task_type.count_outputs(dimensions.vocabulary)
    held = _BYTES_A_PARAMETER * bound_parameters(dimensions)
    return round(_SLACK * held + _PASSING_SLACK * passing) + _RUNTIME


def bound_activations(
    dimensions: Dimensions, configuration: Mapping[str, Any], *, rows: int, tokens: int
) -> int:
    """Return bytes that suffice for what a forward pass keeps in fp32.

    For each token, a layer keeps at most 20 vectors of its width, or of its heads' if they are wider, 4 of
    its MLP's, and 4 rows of attention scores (16 where positions are scored as well, as DeBERTa does).
    """
    width = max(dimensions.hidden, dimensions.heads * dimensions.head_width)
    scores = 16 if configuration.get("relative_attention") else 4
    layer = 20 * width + 4 * dimensions.feed_forward + scores * dimensions.heads * tokens
    # A decoder beside an encoder looks at both.
    layers = dimensions.all_layers + dimensions.decoder_layers
    return 4 * rows * tokens * (layers * layer + 20 * width)


def bound_parameters(dimensions: Dimensions) -> int:
    """Return at least as many parameters as a base of these sizes has.

    Attention has four matrices, twice in a decoder beside an encoder, and the MLP two, or three with a gate.
    """
    hidden = dimensions.hidden
    inner = dimensions.heads * dimensions.head_width
    attention = 4 * hidden * inner
    mlp = 3 * hidden * dimensions.feed_forward
    vectors = 20 * hidden + 2 * dimensions.feed_forward
    embeddings = (2 * dimensions.vocabulary + 2 * (dimensions.positions or 0) + 1024) * hidden
    stacks = dimensions.all_layers * (attention + mlp + vectors) + dimensions.decoder_layers * attention
    return stacks + embeddings + 8 * hidden**2
