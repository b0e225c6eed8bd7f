"""What LoRA trains on Stable Diffusion v1-4's UNet, whose configuration is all that is needed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lorry_components.kinds.diffusion import build_unet_skeleton
from lorry_components.methods import METHODS
from lorry_components.planning import plan_task
from lorry_registry.errors import BaseModelError
from lorry_registry.task_spec import TaskSpec

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install lorry[images]")

V1_4: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}


@pytest.mark.parametrize(("rank", "trained"), [(4, 797_184), (8, 1_594_368), (16, 3_188_736)])
def test_lora_on_stable_diffusion(tmp_path: Path, rank: int, trained: int) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps(V1_4), "utf-8")
    unet = build_unet_skeleton(tmp_path)
    assert sum(parameter.numel() for parameter in unet.parameters()) == 859_520_964
    method = METHODS["lora"]({"r": rank})
    with torch.device("meta"):
        counts = method.count_parameters(method.adapt(unet, frozenset()), frozenset())
    assert (counts.adapter, counts.head) == (trained, 0)
    assert counts.total == 859_520_964 + trained
    # Within the 64 MiB that an adapter may take.
    assert trained * 4 < 13 * 2**20


def test_a_plan_is_refused_with_the_reason(make_spec: Callable[..., TaskSpec], pipeline: Path) -> None:
    with pytest.raises(BaseModelError, match="plans are for models of text"):
        plan_task(make_spec(pipeline))
