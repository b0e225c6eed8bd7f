"""The sizes of a base, read from its configuration."""

import pytest

from lorry_components.models.configuration import read_known_configurations
from lorry_components.models.dimensions import read_dimensions


@pytest.mark.parametrize("model", read_known_configurations())
def test_sizes_are_read_from_every_family(model: str) -> None:
    sizes = read_dimensions(read_known_configurations()[model])
    assert sizes is not None
    assert sizes.hidden == sizes.heads * sizes.head_width
    assert sizes.layers >= 12


def test_sizes_that_have_other_names_are_none() -> None:
    assert read_dimensions({"model_type": "resnet", "depths": [3, 4, 6, 3]}) is None


def test_sizes_of_the_language_model_beside_another() -> None:
    values = {
        "text_config": {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 9}
    }
    sizes = read_dimensions(values)
    assert sizes is not None
    assert (sizes.hidden, sizes.feed_forward, sizes.decoder_layers) == (8, 32, 0)
