"""Blocks are found by structure, in an encoder, a decoder, and a model with both."""

from collections.abc import Callable

import pytest
import torch
from transformers import (
    BloomConfig,
    Gemma2Config,
    GPTNeoXConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from lorry_components.models.blocks import build_skeleton, find_layers
from lorry_components.models.dimensions import read_hidden_size, read_width

_SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
OTHERS: dict[str, PreTrainedConfig] = {
    "bloom": BloomConfig(vocab_size=99, hidden_size=32, n_layer=2, n_head=2),
    "gemma2": Gemma2Config(**_SMALL, num_key_value_heads=1, head_dim=16, intermediate_size=64),
    "gpt-neox": GPTNeoXConfig(**_SMALL, intermediate_size=64),
    "opt": OPTConfig(**_SMALL, ffn_dim=64, word_embed_proj_dim=32),
    "qwen2": Qwen2Config(**_SMALL, num_key_value_heads=1, intermediate_size=64),
}


@pytest.mark.parametrize(
    ("style", "first", "attention", "mlp"),
    [
        ("bert", "encoder.layer.0", "attention.output.dense", "output.dense"),
        ("roberta", "encoder.layer.0", "attention.output.dense", "output.dense"),
        ("deberta-v2", "encoder.layer.0", "attention.output.dense", "output.dense"),
        ("distilbert", "transformer.layer.0", "attention.out_lin", "ffn.lin2"),
        ("modernbert", "layers.0", "attn.Wo", "mlp.Wo"),
        ("gpt2", "h.0", "attn.c_proj", "mlp.c_proj"),
        ("llama", "layers.0", "self_attn.o_proj", "mlp.down_proj"),
    ],
)
def test_blocks(
    tiny_config: Callable[[str], PreTrainedConfig], style: str, first: str, attention: str, mlp: str
) -> None:
    skeleton = build_skeleton(tiny_config(style))
    assert all(parameter.is_meta for parameter in skeleton.parameters())
    blocks = find_layers(skeleton)
    assert [block.name for block in blocks] == [first, f"{first[:-1]}1"]
    for block in blocks:
        assert block.module is skeleton.get_submodule(block.name)
        assert block.attention_output is block.module.get_submodule(attention)
        assert block.mlp_output is block.module.get_submodule(mlp)


def test_an_encoders_blocks_come_before_its_decoders(
    tiny_config: Callable[[str], PreTrainedConfig],
) -> None:
    blocks = find_layers(build_skeleton(tiny_config("t5")))
    assert [block.name for block in blocks] == [
        *("encoder.block.0", "encoder.block.1", "decoder.block.0", "decoder.block.1"),
    ]
    assert blocks[0].mlp_output is blocks[0].module.get_submodule("layer.1.DenseReluDense.wo")
    # In a decoder, attention to the encoder lies between.
    assert blocks[2].mlp_output is blocks[2].module.get_submodule("layer.2.DenseReluDense.wo")
    assert blocks[2].attention_output is blocks[2].module.get_submodule("layer.0.SelfAttention.o")


@pytest.mark.parametrize("name", OTHERS)
def test_the_ends_write_into_the_residual_stream(name: str) -> None:
    skeleton = build_skeleton(OTHERS[name])
    blocks = find_layers(skeleton)
    assert len(blocks) == 2
    for block in blocks:
        for end in (block.attention_output, block.mlp_output):
            assert isinstance(end.weight, torch.Tensor)
            assert read_hidden_size(skeleton.config) in end.weight.shape
            assert read_width(skeleton) in end.weight.shape
