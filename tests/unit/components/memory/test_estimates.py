"""The arithmetic: parts, ranges, GPUs, and advice."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from lorry_components.memory.activations import Activations, measure_activations
from lorry_components.memory.advice import list_advice
from lorry_components.memory.architecture import (
    adapt_architecture,
    build_architecture,
    build_configuration,
)
from lorry_components.memory.estimates import (
    Footprint,
    Recipe,
    estimate_host,
    estimate_inference,
    estimate_training,
)
from lorry_components.memory.gpus import DEVICES, GIB, find_smallest_device, recognise_device
from lorry_components.memory.plan import make_footprint
from lorry_components.memory.plan_document import judge_device
from lorry_components.methods import METHODS
from lorry_components.models.configuration import BaseConfiguration

ACTIVATIONS = Activations(
    kept=8 * GIB, layers=10, largest_layer=GIB // 2, outside=GIB // 4, boundary=2**20, logits=GIB // 8
)
BIG = Footprint(
    frozen=0,
    trained=12_000_000_000,
    frozen_matrices=0,
    freezes_base=False,
    copies_trained=True,
    activations=ACTIVATIONS,
    rows=8,
)
ADAPTED = replace(
    BIG,
    frozen=7_000_000_000,
    trained=4_000_000,
    frozen_matrices=6_000_000_000,
    freezes_base=True,
    copies_trained=False,
    outside_blocks=1_000_000_000,
    largest_block=200_000_000,
)
FP32 = Recipe("cuda", "fp32", 8)


def _accept(fields: Mapping[str, Any]) -> bool:
    # As validation: weights in four bits are not divided.
    return not {"method.name", "train.offload"} <= fields.keys()


def _part(estimate: object, name: str) -> int:
    return next(part.high for part in estimate.parts if part.name == name)  # type: ignore[attr-defined]


def test_the_formula() -> None:
    logits = 2 * ACTIVATIONS.logits
    assert estimate_training(BIG, FP32).formula == 16 * BIG.trained + ACTIVATIONS.kept + logits
    adapted = 4 * ADAPTED.frozen + 16 * ADAPTED.trained + ACTIVATIONS.kept + logits
    assert estimate_training(ADAPTED, FP32).formula == adapted


def test_a_range_is_a_range() -> None:
    for footprint in (BIG, ADAPTED):
        for recipe in (FP32, replace(FP32, precision="bf16"), replace(FP32, device="cpu")):
            for estimate in (estimate_training(footprint, recipe), estimate_inference(footprint, recipe)):
                assert 0 < estimate.low < estimate.high
                assert all(0 <= part.low <= part.high for part in estimate.parts)


def test_only_a_frozen_base_is_held_in_half_precision() -> None:
    half = replace(FP32, precision="bf16")
    assert _part(estimate_training(ADAPTED, half), "weights") == 2 * ADAPTED.frozen + 4 * ADAPTED.trained
    assert _part(estimate_training(BIG, half), "weights") == 4 * BIG.trained


def test_full_fine_tuning_remembers_the_base_in_host_memory() -> None:
    on_cpu = estimate_training(BIG, replace(FP32, device="cpu"))
    assert _part(on_cpu, "copy of what is trained") == 4 * BIG.trained
    assert all(part.name != "copy of what is trained" for part in estimate_training(BIG, FP32).parts)
    assert _part(estimate_host(BIG), "copy of what is trained") == 4 * BIG.trained


def test_moments_of_eight_bits() -> None:
    eight_bit = replace(FP32, is_eight_bit=True)
    assert _part(estimate_training(BIG, FP32), "optimiser") == 8 * BIG.trained
    # Two bytes, and their scales.
    assert _part(estimate_training(BIG, eight_bit), "optimiser") == 2.03125 * BIG.trained
    halved = replace(BIG, wide_moments=BIG.trained // 2)
    assert _part(estimate_training(halved, eight_bit), "optimiser") == (8 + 2.03125) * BIG.trained / 2
    assert _part(estimate_training(halved, FP32), "optimiser") == 8 * BIG.trained
    assert not any("optimizer" in one.change for one in list_advice(BIG, eight_bit, _accept))


def test_a_base_in_four_bits() -> None:
    packed = replace(FP32, is_four_bit=True)
    rest = ADAPTED.frozen - ADAPTED.frozen_matrices
    matrices = round(4.127 / 8 * ADAPTED.frozen_matrices)
    for precision, size in (("fp32", 4), ("bf16", 2)):
        estimate = estimate_training(ADAPTED, replace(packed, precision=precision))  # type: ignore[arg-type]
        assert _part(estimate, "weights") == matrices + size * rest + 4 * ADAPTED.trained
    assert not any("qlora" in one.change for one in list_advice(ADAPTED, packed, _accept))


def test_a_base_in_the_memory_of_the_host() -> None:
    offloaded = replace(FP32, is_offloaded=True)
    trained = 4 * ADAPTED.trained
    gathered = ADAPTED.outside_blocks + 2 * ADAPTED.largest_block
    estimate = estimate_training(ADAPTED, offloaded)
    assert _part(estimate, "weights") == 4 * gathered + trained
    # What is trained stays where it is computed.
    assert _part(estimate, "gradients") == trained
    assert _part(estimate, "optimiser") == 2 * trained
    half = estimate_training(ADAPTED, replace(offloaded, precision="bf16"))
    assert _part(half, "weights") == 2 * gathered + trained
    on_processors = estimate_training(ADAPTED, replace(offloaded, device="cpu"))
    assert _part(on_processors, "weights") == 4 * (ADAPTED.frozen + gathered) + trained
    small = replace(ADAPTED, outside_blocks=0, largest_block=ADAPTED.frozen)
    assert _part(estimate_training(small, offloaded), "weights") == 4 * ADAPTED.frozen + trained
    assert not any("qlora" in one.change for one in list_advice(ADAPTED, offloaded, _accept))


def test_of_a_base_without_known_blocks_nothing_is_offloaded() -> None:
    unknown = replace(ADAPTED, outside_blocks=ADAPTED.frozen, largest_block=0)
    assert not any("offload" in one.change for one in list_advice(unknown, FP32, _accept))


def test_llama_out_of_sample() -> None:
    """PEFT's comparison: LoRA r=32 on Llama-3.2-3B in bf16, 4 rows of up to 768 tokens, 22.3 GB."""
    base = BaseConfiguration(
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 8192,
            "vocab_size": 128256,
            "tie_word_embeddings": True,
            "max_position_embeddings": 131072,
        },
        "Llama-3.2-3B",
    )
    method = METHODS["lora"]({"r": 32})
    adapted = adapt_architecture(
        method, build_architecture(base, build_configuration(base), "AutoModelForCausalLM")
    )
    assert adapted.parameters.total - adapted.parameters.adapter == 3_212_749_824
    activations = measure_activations(adapted.model, rows=4, tokens=768, on_cuda=True)
    estimate = estimate_training(make_footprint(adapted, method, activations, 4), Recipe("cuda", "bf16", 4))
    assert estimate.low < 22.3e9 < estimate.high


@pytest.mark.parametrize(
    ("sizes", "model_class"),
    [
        ({"model_type": "llama", "num_key_value_heads": 2}, "AutoModelForCausalLM"),
        ({"model_type": "bert"}, "AutoModelForSequenceClassification"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "AutoModelForSeq2SeqLM"),
    ],
)
def test_what_is_held_in_four_bits_is_what_is_packed(sizes: dict[str, Any], model_class: str) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    known = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    base = BaseConfiguration({**known, "vocab_size": 100, "tie_word_embeddings": False, **sizes}, "somewhere")
    qlora = METHODS["qlora"]({"r": 4})
    planned = adapt_architecture(qlora, build_architecture(base, build_configuration(base), model_class))
    packed = build_architecture(base, build_configuration(base), model_class).model
    asked = qlora.list_load_options()["quantization_config"]
    kept = [*asked.llm_int8_skip_modules, *(packed._keep_in_fp32_modules or ())]
    packed = replace_with_bnb_linear(packed, modules_to_not_convert=kept, quantization_config=asked)
    assert planned.frozen_matrices == sum(
        module.in_features * module.out_features
        for module in packed.modules()
        if isinstance(module, bitsandbytes.nn.Linear4bit)
    )


def test_devices_are_in_order_and_the_smallest_that_fits_is_found() -> None:
    assert [device.usable for device in DEVICES] == sorted(device.usable for device in DEVICES)
    assert find_smallest_device(GIB).name == "T4 16 GB"  # type: ignore[union-attr]
    assert find_smallest_device(30 * GIB).name == "A100 40 GB"  # type: ignore[union-attr]
    assert find_smallest_device(100 * GIB).name == "H200 141 GB"  # type: ignore[union-attr]
    assert find_smallest_device(200 * GIB) is None


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}, "A100 80 GB"),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}, "A100 40 GB"),
        ({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, "H100 80 GB"),
        ({"nvidia.com/gpu.product": "NVIDIA-H200"}, "H200 141 GB"),
        ({"nvidia.com/gpu.product": "Tesla-T4"}, "T4 16 GB"),
        ({"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}, "T4 16 GB"),
        ({"cloud.google.com/gke-accelerator": "nvidia-tesla-a100"}, "A100 40 GB"),
        ({"cloud.google.com/gke-accelerator": "nvidia-a100-80gb"}, "A100 80 GB"),
        ({"cloud.google.com/gke-accelerator": "nvidia-l4"}, "L4 24 GB"),
        ({"karpenter.k8s.aws/instance-gpu-name": "a10g"}, "A10 24 GB"),
        ({"nvidia.com/gpu.product": "Quadro-RTX-6000"}, None),
        ({"pool": "t4"}, None),
        ({}, None),
    ],
)
def test_a_node_selector_names_its_gpu(labels: dict[str, str], name: str | None) -> None:
    device = recognise_device(labels)
    assert (device.name if device else None) == name


def test_advice_says_what_each_change_saves() -> None:
    advice = list_advice(ADAPTED, FP32, _accept)
    needed = estimate_training(ADAPTED, FP32).high
    assert [one.saved for one in advice[:-1]] == sorted((one.saved for one in advice[:-1]), reverse=True)
    assert all(one.saved + one.needed == needed for one in advice)
    changes = {one.change for one in advice}
    assert {
        "train.gradient_checkpointing: true",
        "train.precision: bf16",
        "method.name: qlora",
        "train.offload: true",
    } <= changes
    # LoRA's optimiser is too small for eight bits to matter.
    assert "train.optimizer: adamw-8bit" not in changes
    # Weights in four bits are not divided, and offloading saves more.
    assert advice[-1].change == "all of these together but method.name: qlora"
    assert advice[-1].needed < min(one.needed for one in advice[:-1])
    assert advice[-1].device is not None


def test_batches_of_processes_are_divided_evenly() -> None:
    def find_batch(**recipe: Any) -> list[str]:
        found = list_advice(ADAPTED, replace(FP32, **recipe), _accept)
        return [one.change for one in found if "batch_size" in one.change]

    assert find_batch(rows=8) == ["train.batch_size: 4, and twice the gradient_accumulation"]
    assert find_batch(rows=9) == ["train.batch_size: 3, and 3 times the gradient_accumulation"]
    assert find_batch(rows=8, processes=3) == ["train.batch_size: 12, and twice the gradient_accumulation"]
    assert find_batch(rows=1, processes=3) == []


def test_half_precision_is_advised_as_the_gpu_has_it() -> None:
    for half in ("bf16", "fp16"):
        changes = {one.change for one in list_advice(ADAPTED, FP32, _accept, half=half)}
        assert f"train.precision: {half}" in changes


def test_advice_for_full_fine_tuning() -> None:
    assert find_smallest_device(estimate_training(BIG, FP32).high) is None
    changes = {one.change: one for one in list_advice(BIG, FP32, _accept)}
    assert changes["train.optimizer: adamw-8bit"].saved >= 5.9 * BIG.trained
    assert not any("qlora" in change for change in changes)
    # Only frozen weights can be.
    assert not any("offload" in change for change in changes)


def test_on_a_processor_nothing_is_offloaded_or_held_in_four_bits() -> None:
    changes = " ".join(one.change for one in list_advice(ADAPTED, replace(FP32, device="cpu"), _accept))
    assert "offload" not in changes
    assert "qlora" not in changes


def test_a_gpu_is_judged_by_both_ends() -> None:
    estimate = estimate_training(replace(ADAPTED, frozen=8_500_000_000), FP32)
    verdicts = {device.name: judge_device(device, estimate) for device in DEVICES}
    assert verdicts["T4 16 GB"] == "too small"
    assert verdicts["A100 40 GB"] == "may fit"
    assert verdicts["A100 80 GB"] == "fits"
