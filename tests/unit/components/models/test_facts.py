"""What a base is: which way it reads, and its sizes, for the architectures of transformers that read text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    BartConfig,
    BertConfig,
    BltConfig,
    CamembertConfig,
    GPT2Config,
    MusicgenConfig,
    MusicgenMelodyConfig,
    PerceiverConfig,
    PreTrainedConfig,
    RobertaConfig,
    T5Config,
    XLMRobertaXLConfig,
)

from lorry_components.methods import METHODS
from lorry_components.models.dimensions import count_positions, read_dimensions, read_hidden_size
from lorry_components.models.model_family import (
    fills_masks,
    is_bidirectional,
    is_causal,
    is_encoder_decoder,
    is_sequence_to_sequence,
    pools_last_token,
)
from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_registry.errors import BaseModelError
from lorry_registry.tasks.task_spec import TrainSpec

# Encoders and decoders of sizes that differ, or latents beside bytes: no single width.
WITHOUT_WIDTH = [BltConfig, PerceiverConfig, MusicgenConfig, MusicgenMelodyConfig]
ANSWERS = (is_encoder_decoder, is_bidirectional, is_causal, fills_masks, pools_last_token)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (BertConfig(), "bidirectional fills_masks"),
        (BertConfig(is_decoder=True), "causal fills_masks"),
        (GPT2Config(), "causal pools_last_token"),
        (T5Config(), "encoder_decoder"),
        (BartConfig(), "encoder_decoder bidirectional"),
    ],
)
def test_which_way_a_base_reads(config: PreTrainedConfig, expected: str) -> None:
    answers = [ask.__name__.removeprefix("is_") for ask in ANSWERS if ask(config)]
    assert answers == expected.split()
    assert is_sequence_to_sequence(config) == config.is_encoder_decoder


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (BertConfig(), 512),
        (GPT2Config(), 1024),
        # These count from the padding token's index.
        (RobertaConfig(max_position_embeddings=514), 512),
        (CamembertConfig(max_position_embeddings=514), 512),
        (XLMRobertaXLConfig(max_position_embeddings=514), 512),
        (T5Config(), None),
    ],
)
def test_positions_are_counted_alike_with_transformers_and_without(
    config: PreTrainedConfig, positions: int | None
) -> None:
    assert count_positions(config) == positions
    dimensions = read_dimensions(config.to_dict())
    assert dimensions is not None
    assert dimensions.positions == positions


@pytest.mark.parametrize("config_class", WITHOUT_WIDTH)
def test_a_base_without_a_single_width_is_refused_by_name(config_class: Callable[[], Any]) -> None:
    config = config_class()
    with pytest.raises(BaseModelError, match=f"the layers of a {config.model_type} have no single width"):
        read_hidden_size(config)
    # Where nothing is known, nothing is limited.
    assert count_positions(config) is None or count_positions(config) > 0


@pytest.mark.parametrize("config_class", WITHOUT_WIDTH)
def test_such_a_base_needs_a_learning_rate(config_class: Callable[[], Any], tmp_path: Path) -> None:
    config_class().save_pretrained(tmp_path)
    task_type = TASK_TYPES["text-classification"](InputForm(max_length=16))
    method = METHODS["full"]({}, "SEQ_CLS")
    (fault,) = task_type.check_on_base(tmp_path, TrainSpec(), method)
    assert fault.where == "train.learning_rate"
    assert "no single width" in fault.what
    assert not list(task_type.check_on_base(tmp_path, TrainSpec(learning_rate=1e-4), method))
