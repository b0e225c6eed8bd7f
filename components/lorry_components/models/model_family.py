"""The family of a base: decoder, bidirectional encoder, or encoder and decoder.

transformers keeps a table of architectures for each way of use. BERT and its like stand in the one for causal
language models too, for a use as decoders that they were not trained for.
"""

import importlib
from typing import TYPE_CHECKING

from lorry_components.models.stored_base import StoredConfig, read_table

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def is_encoder_decoder(config: "PretrainedConfig") -> bool:
    """Return whether a base is an encoder with a decoder beside it, such as T5 or BART."""
    return bool(getattr(config, "is_encoder_decoder", False))


def is_bidirectional(config: "PretrainedConfig") -> bool:
    """Return whether each position of a base sees those behind it too, as in BERT."""
    return _is_masked_family(config) and not getattr(config, "is_decoder", False)


def is_causal(config: "PretrainedConfig") -> bool:
    """Return whether a base is a causal language model; BERT is one where it is configured as a decoder."""
    return _is_causal_family(config) and not is_bidirectional(config)


def fills_masks(config: "PretrainedConfig") -> bool:
    """Return whether a base is one stack that was made to fill in masks."""
    return _is_masked_family(config) and not is_encoder_decoder(config)


def pools_last_token(config: "PretrainedConfig") -> bool:
    """Return whether heads on this architecture read the last position, and not the first as those of BERT.

    So it is for all decoders, of which no earlier position has seen the whole text.
    """
    return _is_causal_family(config) and not _is_masked_family(config)


def is_decoder_class(architecture: str) -> bool:
    """Return whether a class of transformers', by its name, is a decoder: see :func:`pools_last_token`."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_MAPPING_NAMES,
    )

    return any(
        architecture in (name, MODEL_MAPPING_NAMES.get(model_type))
        for model_type, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()
        if model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )


def is_sequence_to_sequence(config: "PretrainedConfig") -> bool:
    """Return whether transformers has a base with an encoder and a decoder of this architecture."""
    return has_class(config, "SEQ_TO_SEQ_CAUSAL_LM")


def has_class(config: "PretrainedConfig | StoredConfig", use: str) -> bool:
    """Return whether transformers has a class for a base's architecture and a use, such as ``CAUSAL_LM``."""
    module, name = "transformers.models.auto.modeling_auto", f"MODEL_FOR_{use}_MAPPING_NAMES"
    if isinstance(config, StoredConfig):
        return config.model_type in read_table(module, name)
    return config.model_type in getattr(importlib.import_module(module), name)


def _is_causal_family(config: "PretrainedConfig") -> bool:
    return has_class(config, "CAUSAL_LM")


def _is_masked_family(config: "PretrainedConfig") -> bool:
    return has_class(config, "MASKED_LM")
