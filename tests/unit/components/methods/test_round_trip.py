"""Every method on several families of bases: it learns, is saved as a delta, and comes back bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedConfig

from lorry_components.methods import METHODS
from lorry_registry.manifest import CONFIG_NAME, WEIGHTS_NAME, Pooling

MakeCase = Callable[..., Any]
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "ft-top": ("ft-top", {"layers": 1}),
    "bitfit": ("bitfit", {}),
    "probe": ("probe", {}),
    "adapter-h": ("adapter-h", {}),
    "adapter-h-norms": ("adapter-h", {"activation": "gelu", "train_layer_norms": True}),
    "adapter-p": ("adapter-p", {"reduction": 8, "activation": "silu"}),
    "adapter-p-sublayer": ("adapter-p", {"placement": "sublayer"}),
    "adapter-l": ("adapter-l", {"size": 3, "activation": "gelu"}),
    "adapter-d": ("adapter-d", {"drop": 1}),
    "prelayer": ("prelayer", {"tokens": 3}),
    "lora": ("lora", {"r": 4}),
    "lora-rs-gaussian": ("lora", {"r": 4, "rslora": True, "init": "gaussian"}),
    "lora-dora": ("lora", {"r": 4, "dora": True}),
    "lora-orthogonal": ("lora", {"r": 4, "init": "orthogonal", "targets": "all-linear"}),
    "lora-top": ("lora", {"r": 4, "layers": 1}),
    "adalora": ("adalora", {"r": 4, "target_r": 2, "interval": 1}),
    "vera": ("vera", {"r": 16}),
    "ia3": ("ia3", {}),
    "prompt-tuning": ("prompt-tuning", {"tokens": 3}),
    "prompt-tuning-random": ("prompt-tuning", {"tokens": 3, "init": "random"}),
    "p-tuning": ("p-tuning", {"tokens": 3}),
    "p-tuning-v2": ("p-tuning-v2", {"tokens": 3}),
    "p-tuning-v2-projected": ("p-tuning-v2", {"tokens": 3, "projection": True, "hidden_size": 8}),
    "peft-oft": ("peft", {"type": "OFT", "oft_block_size": 0, "r": 2}),
    "peft-hra": ("peft", {"type": "HRA", "r": 2}),
}
STYLES = ("bert", "roberta", "gpt2", "llama")
_CHANGE_BASE = {"full", "ft-top", "bitfit", "adapter-h-norms"}
REFUSED = {("bitfit", "llama")}
# Their trained matrices change the base's; OFT and HRA multiply, and know no Conv1D.
_NO_CONV1D = {("peft-oft", "gpt2"), ("peft-hra", "gpt2")}
WORKING = [
    (variant, style)
    for variant, (name, _) in VARIANTS.items()
    for style in STYLES
    # A probe is nothing but a head, and one of Lorry's own: below.
    if name != "probe" and (name, style) not in REFUSED and (variant, style) not in _NO_CONV1D
]


def test_every_method_is_tried() -> None:
    # qlora needs a library that is not installed everywhere, and has tests of its own (test_qlora.py).
    assert {name for name, _ in VARIANTS.values()} == METHODS.keys() - {"qlora"}


@pytest.mark.parametrize(("variant", "style"), WORKING)
def test_what_was_learned_comes_back(make_case: MakeCase, variant: str, style: str, tmp_path: Path) -> None:
    # One test and not four: putting a method on a base is what takes the time.
    name, options = VARIANTS[variant]
    case = make_case(name, style, **options)
    untrained = case.compute()
    learned = case.learn().compute()
    assert not torch.equal(learned, untrained)
    folder = case.save(tmp_path / "adapter")
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]
    restored = case.restore(folder)
    assert not restored.model.training
    assert torch.equal(case.compute(restored.model), learned)
    with restored.without_adapter():
        plain = case.compute(restored.model)
    assert not torch.equal(plain, learned)
    assert torch.equal(case.compute(restored.model), learned)
    check_saved(case, folder, plain, keeps_base=variant not in _CHANGE_BASE)
    # A row alone and beside longer ones.
    with torch.inference_mode():
        alone = case.model(**{key: tensor[1:2, :5] for key, tensor in case.batch.items()}).logits
    torch.testing.assert_close(alone, learned[1:2], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("style", "place"), [("bert", "mean"), ("gpt2", "first")])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if "peft" not in name])
def test_what_was_learned_under_a_pooled_head_comes_back(
    make_case: MakeCase, variant: str, style: str, place: str, tmp_path: Path
) -> None:
    name, options = VARIANTS[variant]
    if (name, style) in REFUSED:
        pytest.skip("this base has no biases")
    pooling = Pooling.model_validate({"place": place, "normalizes": place == "mean"})
    case = make_case(name, style, pooling=pooling, **options)
    untrained = case.compute()
    learned = case.learn().compute()
    assert not torch.equal(learned, untrained)
    folder = case.save(tmp_path / "adapter")
    restored = case.restore(folder)
    assert torch.equal(case.compute(restored.model), learned)
    with restored.without_adapter():
        assert not torch.equal(case.compute(restored.model), learned)
    # A row alone and beside longer ones: padding is not pooled, and neither are soft tokens.
    with torch.inference_mode():
        alone = case.model(**{key: tensor[1:2, :5] for key, tensor in case.batch.items()}).logits
    torch.testing.assert_close(alone, learned[1:2], rtol=0, atol=1e-5)


def check_saved(case: Any, folder: Path, plain: torch.Tensor, *, keeps_base: bool) -> None:
    """Check that of the task's model only the head is saved, and acts when the adapter is off."""
    bare, newly_initialized = case.task_type.load_model(case.folder, ["no", "yes"])
    saved = load_file(folder / WEIGHTS_NAME)
    names = {key.removeprefix("base_model.model.").removeprefix("base_model.") for key in saved}
    assert not keeps_base or names & {name for name, _ in bare.named_parameters()} == newly_initialized
    with torch.no_grad():
        for head in newly_initialized:
            (key,) = [key for key in saved if key == head or key.endswith(f".{head}")]
            bare.get_parameter(head).copy_(saved[key])
    assert torch.equal(plain, case.compute(bare.eval()))


@pytest.mark.parametrize("init", ["pissa", "olora"])
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("style", ["bert", "llama"])
def test_a_start_from_the_base_is_stored_as_a_plain_lora(
    make_case: MakeCase, style: str, init: str, rslora: bool, tmp_path: Path
) -> None:
    case = make_case("lora", style, r=4, init=init, rslora=rslora)
    bare, _ = case.task_type.load_model(case.folder, ["no", "yes"])
    case.learn()
    restored = case.restore(case.save(tmp_path / "adapter"))
    config = restored.model.peft_config["default"]
    assert (config.r, config.init_lora_weights) == (8, True)
    # The sum is the same, and is summed up in another order.
    torch.testing.assert_close(case.compute(restored.model), case.compute(), rtol=0, atol=1e-6)
    # The base, which other adapters share, was left alone.
    query = next(name for name, _ in bare.named_parameters() if "query.weight" in name or "q_proj" in name)
    kept = restored.model.base_model.model.get_parameter(query.replace(".weight", ".base_layer.weight"))
    assert torch.equal(kept, bare.get_parameter(query))


def test_conv1d_of_gpt2_can_start_from_its_principal_directions(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case("lora", "gpt2", r=4, init="pissa").learn()
    restored = case.restore(case.save(tmp_path / "adapter"))
    torch.testing.assert_close(case.compute(restored.model), case.compute(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["adapter-h", "adapter-p", "adapter-l", "adapter-d"])
@pytest.mark.parametrize("style", [*STYLES, "deberta-v2", "distilbert", "modernbert"])
def test_bottlenecks_start_as_nothing(make_case: MakeCase, name: str, style: str) -> None:
    case = make_case(name, style)
    inserted = [module for module in case.model.modules() if type(module).__name__ == "Bottleneck"]
    assert len(inserted) == {"adapter-h": 4, "adapter-d": 1}.get(name, 2)
    case.model.eval()
    changed = case.compute()
    for module in inserted:
        module.is_active = False
    assert torch.equal(changed, case.compute())


def test_a_head_in_the_middle_of_a_name_is_not_a_prompt_encoders(make_case: MakeCase, tmp_path: Path) -> None:
    # ModernBERT's new module is called 'head', and PEFT's encoder has an 'mlp_head'.
    case = make_case("p-tuning", "modernbert", tokens=3).learn()
    restored = case.restore(case.save(tmp_path / "adapter"))
    torch.testing.assert_close(case.compute(restored.model), case.compute(), rtol=0, atol=1e-6)


def test_adalora_takes_labels_after_it_was_restored(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case("adalora", r=4, target_r=2).learn()
    restored = case.restore(case.save(tmp_path / "adapter"))
    assert restored.model(**case.batch, labels=case.targets).loss.isfinite()


@pytest.mark.parametrize("style", STYLES)
def test_head_and_adapter_are_counted_apart(
    make_case: MakeCase, tiny_config: Callable[[str], PreTrainedConfig], style: str
) -> None:
    case = make_case("adapter-p", style, size=3)
    counts = case.method.count_parameters(case.model, case.newly_initialized)
    bare, newly_initialized = case.task_type.load_model(case.folder, ["no", "yes"])
    assert counts.head == sum(bare.get_parameter(name).numel() for name in newly_initialized)
    assert counts.adapter == 2 * (2 * 32 * 3 + 3 + 32)
    assert counts.total == sum(parameter.numel() for parameter in bare.parameters()) + counts.adapter
