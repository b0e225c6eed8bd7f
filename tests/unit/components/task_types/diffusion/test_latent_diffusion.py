"""LoRA on a UNet: learned, resumed, saved as PEFT reads it, registered, loaded and drawn with."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from lorry_components.inference import LoadedAdapter, load_adapter
from lorry_components.steps.evaluate.evaluation_report import PLOT_NAME, EvaluationReport
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.gate.step import decide
from lorry_components.steps.prepare_data.step import load_part, prepare_data
from lorry_components.steps.register.step import register
from lorry_components.task_types import ImageGeneration, InputForm
from lorry_components.task_types.diffusion.image_arrays import decode_image
from lorry_components.task_types.diffusion.latent_diffusion import (
    DiffusionParts,
    build_denoising_model,
    predict_noise,
)
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.distributed.process_group import finetune_in_processes
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.manifest import WEIGHTS_NAME
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
PROMPTS = ["a photo of sks dog in the snow", "a photo of sks dog in the snow", "a cat"]


def train(spec: TaskSpec, folder: Path, checkpoints: str = "checkpoints") -> TrainingSummary:
    if not (folder / "data").exists():
        prepare_data(resolve_task(spec), folder / "data")
    return finetune(
        resolve_task(spec), folder / "data", folder / "candidate", checkpoints=folder / checkpoints
    )


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "candidate" / "adapter" / WEIGHTS_NAME)


def publish(spec: TaskSpec, folder: Path, registry: Registry) -> LoadedAdapter:
    report = evaluate(
        resolve_task(spec), folder / "data", folder / "candidate", folder / "evaluation", registry=registry
    )
    register(
        resolve_task(spec),
        folder / "candidate",
        report,
        decide(spec.gate, report),
        registry=registry,
        index=None,
        details={},
    )
    found = registry.resolve(spec.name)
    return load_adapter(registry.fetch(found.adapter_id), expected_id=found.adapter_id)


def test_every_step_from_images_to_an_image(make_spec: MakeSpec, pipeline: Path, tmp_path: Path) -> None:
    spec = make_spec(pipeline, train={"steps": 40, "learning_rate": 1e-2})
    summary = train(spec, tmp_path)
    assert summary.libraries.keys() >= {"diffusers", "peft"}
    registry = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")
    loaded = publish(spec, tmp_path, registry)

    report = EvaluationReport.load(tmp_path / "evaluation")
    assert report.evaluation.primary == "denoising"
    lines = (tmp_path / "evaluation" / "predictions.jsonl").read_text("utf-8").splitlines()
    recorded = [json.loads(line) for line in lines]
    examples = load_part(tmp_path / "data", "test")
    assert [entry["label"] for entry in recorded] == [example.label for example in examples]
    assert all(entry.keys() == {"text", "label", "prediction"} for entry in recorded)
    error = sum(entry["prediction"]["noise_error"] for entry in recorded)
    power = sum(entry["prediction"]["noise_power"] for entry in recorded)
    assert report.evaluation.headline.value == pytest.approx(1 - error / power)
    assert (tmp_path / "evaluation" / PLOT_NAME).stat().st_size > 5000

    # It learned something: with the adapter noise is predicted better than without.
    rows = [example.row for example in examples]
    with loaded.predictor.adapted.without_adapter():
        base = loaded.predictor.predict(rows)
    assert error < 0.97 * sum(prediction["noise_error"] for prediction in base)

    first, second, other = loaded.predictor.predict([{"text": prompt} for prompt in PROMPTS])
    again = loaded.predictor.predict([{"text": PROMPTS[0]}])[0]
    assert first == again
    assert first["image"] != second["image"] != other["image"]
    assert decode_image(first["image"]).shape == (32, 32, 3)
    assert first.keys() == {"image", "seed"}
    with loaded.predictor.adapted.without_adapter():
        assert loaded.predictor.predict([{"text": PROMPTS[0]}])[0]["image"] != first["image"]


def test_plain_peft_reads_the_adapter(make_spec: MakeSpec, pipeline: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel
    from peft import PeftModel

    summary = train(make_spec(pipeline), tmp_path)
    weights = read_weights(tmp_path)
    assert {name.rpartition(".lora_")[0].partition("attn")[2].partition(".")[2] for name in weights} == {
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
    }
    assert sum(tensor.numel() for tensor in weights.values()) == summary.parameters.adapter
    unet = UNet2DConditionModel.from_pretrained(pipeline / "unet")
    plain = PeftModel.from_pretrained(unet, str(tmp_path / "candidate" / "adapter")).eval()
    task_type = ImageGeneration(InputForm(128))
    parts = DiffusionParts(pipeline)
    outputs = task_type.compute_outputs(plain, parts, [{"text": "a dog"}], None, lambda _: None)
    report = evaluate(
        resolve_task(make_spec(pipeline)),
        tmp_path / "data",
        tmp_path / "candidate",
        tmp_path / "evaluation",
        registry=None,
    )
    probed = task_type.compute_outputs(plain, parts, report.probe.rows, None, lambda _: None)
    np.testing.assert_allclose(probed, np.asarray(report.probe.outputs), atol=1e-6)
    with plain.disable_adapter():
        bare = task_type.compute_outputs(plain, parts, [{"text": "a dog"}], None, lambda _: None)
    assert np.abs(outputs - bare).max() > 1e-4


def test_the_whole_unet_can_be_trained(make_spec: MakeSpec, pipeline: Path, tmp_path: Path) -> None:
    spec = make_spec(pipeline, method={"name": "full"}, train={"learning_rate": 1e-3, "steps": 20})
    summary = train(spec, tmp_path)
    assert summary.parameters.adapter == summary.parameters.total
    loaded = publish(spec, tmp_path, Registry(LocalStore(tmp_path / "store"), tmp_path / "cache"))
    rows = [example.row for example in load_part(tmp_path / "data", "test")]
    with loaded.predictor.adapted.without_adapter():
        base = loaded.predictor.predict(rows)
    trained = loaded.predictor.predict(rows)
    assert sum(row["noise_error"] for row in trained) < 0.9 * sum(row["noise_error"] for row in base)


@pytest.mark.parametrize("method", [{"name": "full"}, {"name": "lora", "r": 4, "dropout": 0.1}])
def test_a_resumed_training_ends_with_the_same_weights(
    make_spec: MakeSpec, pipeline: Path, tmp_path: Path, method: dict[str, Any]
) -> None:
    spec = make_spec(pipeline, method=method)
    train(spec, tmp_path)
    whole = read_weights(tmp_path)
    kept = sorted((tmp_path / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    shutil.rmtree(kept[-1])
    summary = train(spec, tmp_path)
    assert 0 < summary.resumed_from < summary.steps
    resumed = read_weights(tmp_path)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_gradient_checkpointing_changes_no_weights(
    make_spec: MakeSpec, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import UNet2DConditionModel

    train(make_spec(pipeline), tmp_path)
    plain = read_weights(tmp_path)
    enabled: list[bool] = []
    original = UNet2DConditionModel.enable_gradient_checkpointing

    def enable(self: Any) -> None:
        original(self)
        enabled.append(self.is_gradient_checkpointing)

    monkeypatch.setattr(UNet2DConditionModel, "enable_gradient_checkpointing", enable)
    train(make_spec(pipeline, train={"gradient_checkpointing": True}), tmp_path, "others")
    assert enabled == [True]
    saved = read_weights(tmp_path)
    assert all(torch.allclose(saved[name], plain[name], atol=1e-5) for name in plain)


def test_training_in_bf16(make_spec: MakeSpec, pipeline: Path, tmp_path: Path) -> None:
    summary = train(make_spec(pipeline, train={"precision": "bf16", "steps": 2}), tmp_path)
    assert summary.precision == "bf16"
    assert all(tensor.dtype == torch.float32 for tensor in read_weights(tmp_path).values())


def test_another_base_is_not_taken_for_its_own(make_spec: MakeSpec, pipeline: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(pipeline, tmp_path / "own"))
    spec = make_spec(own, train={"steps": 2})
    train(spec, tmp_path)
    registry = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")
    publish(spec, tmp_path, registry)
    found = registry.resolve("dog")
    folder = registry.fetch(found.adapter_id)
    load_adapter(folder, base_model=str(pipeline))
    weights = load_file(own / "vae" / "diffusion_pytorch_model.safetensors")
    from safetensors.torch import save_file

    save_file(
        {name: tensor + 0.01 for name, tensor in weights.items()},
        own / "vae" / "diffusion_pytorch_model.safetensors",
    )
    with pytest.raises(AdapterRejectedError, match="fingerprint"):
        load_adapter(folder)


def test_images_are_those_that_diffusers_draws(pipeline: Path) -> None:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    parts = DiffusionParts(pipeline)
    unet = UNet2DConditionModel.from_pretrained(pipeline / "unet")
    scheduler = DDIMScheduler.from_pretrained(
        pipeline / "scheduler", clip_sample=False, set_alpha_to_one=False
    )
    reference = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(pipeline / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(pipeline / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(pipeline / "tokenizer"),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    reference.set_progress_bar_config(disable=True)
    wanted = reference(
        PROMPTS[0], num_inference_steps=5, guidance_scale=4.0, latents=parts.draw_noise(3), output_type="np"
    ).images[0]
    generate = {"steps": 5, "guidance": 4.0, "seed": 3}
    spec = TaskSpec.model_validate(
        {
            "name": "dog",
            "kind": "image-generation",
            "base": {"model": str(pipeline)},
            "data": {"source": "./dog"},
            "method": {"name": "lora"},
            "generate": generate,
        }
    )
    task_type = ImageGeneration(InputForm.of(spec))
    (drawn,) = task_type.predict(unet, parts, [{"text": PROMPTS[0]}], None, lambda _: None)
    difference = np.abs(decode_image(drawn["image"]).astype(float) - wanted * 255)
    assert difference.max() <= 1.0


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_is_that_of_the_noise_or_its_velocity(pipeline: Path, prediction_type: str) -> None:
    from diffusers import DDIMScheduler, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(pipeline / "unet").eval()
    scheduler = DDIMScheduler(prediction_type=prediction_type)
    generator = torch.Generator().manual_seed(1)
    latents, noise = torch.randn((2, 3, 4, 16, 16), generator=generator)
    prompt = torch.randn((3, 24, 16), generator=generator)
    times = torch.tensor([10, 500, 900])
    predicted, wanted = predict_noise(unet, scheduler, latents, noise, times, prompt)
    kept = scheduler.alphas_cumprod[times].view(3, 1, 1, 1)
    by_hand = noise if prediction_type == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * latents
    torch.testing.assert_close(wanted, by_hand)
    noised = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    torch.testing.assert_close(predicted, unet(noised, times, encoder_hidden_states=prompt).sample)

    model = build_denoising_model(unet, scheduler)
    model.eval()
    inputs = {"mean": latents, "deviation": torch.ones_like(latents), "prompt": prompt}
    assert torch.equal(model(**inputs)["loss"], model(**inputs)["loss"])
    model.train()
    assert not torch.equal(model(**inputs)["loss"], model(**inputs)["loss"])


def test_the_command_writes_images_beside_others(
    make_spec: MakeSpec, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lorry_pipelines.cli.predict import predict_texts

    spec = make_spec(pipeline, train={"steps": 2})
    train(spec, tmp_path)
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LORRY_STORE", str(tmp_path / "store"))
    loaded = publish(spec, tmp_path, Registry(LocalStore(tmp_path / "store"), tmp_path / "cache"))
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    (working / "dog-0.png").write_text("mine", "utf-8")
    result = CliRunner().invoke(
        predict_texts, ["dog", PROMPTS[0], PROMPTS[2], "--json"], catch_exceptions=False
    )
    told = json.loads(result.stdout)
    assert [row["path"] for row in told] == ["dog-1.png", "dog-2.png"]
    assert [row["text"] for row in told] == [PROMPTS[0], PROMPTS[2]]
    assert (working / "dog-0.png").read_text("utf-8") == "mine"
    (first, _) = loaded.predictor.predict([{"text": PROMPTS[0]}, {"text": PROMPTS[2]}])
    assert (working / "dog-1.png").read_bytes() == base64.b64decode(first["image"])
    result = CliRunner().invoke(predict_texts, ["dog", PROMPTS[0]], catch_exceptions=False)
    assert "dog-3.png" in result.stdout


@pytest.mark.exhaustive
def test_two_processes_train_one_adapter_and_go_on_with_it(
    make_spec: MakeSpec, pipeline: Path, tmp_path: Path
) -> None:
    spec = make_spec(pipeline, train={"steps": 4, "gradient_checkpointing": True})
    prepare_data(resolve_task(spec), tmp_path / "data")
    done: list[tuple[int, int]] = []

    def train_in_two() -> TrainingSummary:
        return finetune_in_processes(
            finetune,
            2,
            resolve_task(spec),
            tmp_path / "data",
            tmp_path / "candidate",
            checkpoints=tmp_path / "checkpoints",
            progress=lambda *step: done.append(step),
            log_metrics=lambda _metrics, _step: None,
        )

    summary = train_in_two()
    assert (summary.steps, done[-1]) == (4, (4, 4))
    report = evaluate(
        resolve_task(spec), tmp_path / "data", tmp_path / "candidate", tmp_path / "evaluation", registry=None
    )
    assert report.probe.outputs != report.probe.base_outputs
    whole = read_weights(tmp_path)

    # Each draws noise of its own, and each goes on with its own.
    newest = tmp_path / "checkpoints" / "checkpoint-4"
    states = [torch.load(newest / f"rng_state_{rank}.pth", weights_only=False) for rank in range(2)]
    assert not torch.equal(states[0]["cpu"], states[1]["cpu"])
    shutil.rmtree(newest)
    assert 0 < train_in_two().resumed_from < 4
    resumed = read_weights(tmp_path)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
