"""Closed forms agree with the modules, where there are modules."""

import pytest

from lorry_components.memory.architecture import (
    adapt_architecture,
    build_architecture,
    build_configuration,
)
from lorry_components.methods import METHODS
from lorry_components.models.configuration import BaseConfiguration, read_known_configurations
from lorry_components.models.dimensions import Dimensions, read_dimensions
from lorry_components.reference import closed_forms

HEAD = "AutoModelForSequenceClassification"


def _read(model: str) -> tuple[BaseConfiguration, Dimensions]:
    values = read_known_configurations()[model]
    dimensions = read_dimensions(values)
    assert dimensions is not None
    return BaseConfiguration(values, model), dimensions


def _count_modules(base: BaseConfiguration, method: str, options: dict[str, object]) -> int:
    architecture = build_architecture(base, build_configuration(base), HEAD)
    return adapt_architecture(METHODS[method](options, "SEQ_CLS"), architecture).parameters.adapter


def test_lora() -> None:
    base, sizes = _read("FacebookAI/roberta-base")
    expected = closed_forms.count_lora(sizes, 8, outputs=sizes.hidden, each_layer=2)
    assert _count_modules(base, "lora", {"r": 8, "targets": ["query", "value"]}) == expected


def test_prompt_encoder() -> None:
    base, sizes = _read("google-bert/bert-base-cased")
    options = {"tokens": 9, "encoder": "lstm", "hidden_size": 384, "layers": 2}
    assert _count_modules(base, "p-tuning", options) == closed_forms.count_prompt_encoder(sizes, 9)


def test_biases_and_blocks() -> None:
    """Counted on the bare model: no method is needed for what a base has already."""
    base, sizes = _read("FacebookAI/roberta-base")
    encoder = build_architecture(base, build_configuration(base), HEAD).model.base_model
    biases = sum(parameter.numel() for name, parameter in encoder.named_parameters() if name.endswith("bias"))
    assert biases == closed_forms.count_encoder_biases(sizes)
    base, sizes = _read("openai-community/gpt2-medium")
    decoder = build_architecture(base, build_configuration(base), "AutoModelForCausalLM").model.base_model
    blocks = sum(parameter.numel() for block in decoder.h[-2:] for parameter in block.parameters())
    assert blocks == closed_forms.count_decoder_blocks(sizes, 2)


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
