"""Details in which methods follow the code of their papers' authors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import DebertaConfig, DebertaForSequenceClassification

from lorry_components.methods import METHODS
from lorry_registry.manifest import CONFIG_NAME, WEIGHTS_NAME, BaseIdentity

MakeCase = Callable[..., Any]
IDENTITY = BaseIdentity(
    model="package:somewhere/model", revision=None, fingerprint="sha256:" + "0" * 64, architecture="any"
)


class _PromptEncoder(nn.Module):
    """P-tuning's, as its authors' code has it: THUDM/P-tuning, LAMA/p_tuning/prompt_encoder.py."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.lstm_head = nn.LSTM(width, width // 2, num_layers=2, bidirectional=True, batch_first=True)
        self.mlp_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self) -> torch.Tensor:
        states, _ = self.lstm_head(self.embedding.weight[None])
        computed: torch.Tensor = self.mlp_head(states)[0]
        return computed


def test_p_tuning_has_its_authors_encoder(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case("p-tuning", tokens=3, encoder="lstm").learn()
    soft = case.model.get_submodule("soft_tokens")
    reference = _PromptEncoder(3, 32)
    # All of its weights, in their shapes.
    reference.load_state_dict(soft.encoder.state_dict())
    folder = case.save(tmp_path / "adapter")
    saved = load_file(folder / WEIGHTS_NAME)["prompt_embeddings"]
    torch.testing.assert_close(saved, reference().detach(), rtol=0, atol=1e-6)
    assert json.loads((folder / CONFIG_NAME).read_text("utf-8"))["encoder_hidden_size"] == 16


def test_p_tunings_encoder_of_before_is_one_of_another_width(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case("p-tuning", tokens=3, encoder="lstm", hidden_size=32).learn()
    folder = case.save(tmp_path / "adapter")
    assert json.loads((folder / CONFIG_NAME).read_text("utf-8"))["encoder_hidden_size"] == 32
    torch.testing.assert_close(case.compute(case.restore(folder).model), case.compute(), rtol=0, atol=1e-6)


def _build_deberta() -> DebertaForSequenceClassification:
    torch.manual_seed(0)
    config = DebertaConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
    )
    return DebertaForSequenceClassification(config)


def test_bitfit_trains_the_biases_of_debertas_queries_and_values(tmp_path: Path) -> None:
    model, head = _build_deberta(), frozenset({"classifier.weight", "classifier.bias"})
    method = METHODS["bitfit"]({})
    method.adapt(model, head)
    own = {f"deberta.encoder.layer.{layer}.attention.self.{part}_bias" for layer in range(2) for part in "qv"}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert own <= trained
    assert {name for name, _ in model.named_parameters() if name.endswith("bias")} <= trained
    words = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    model.train()
    model(input_ids=words, labels=torch.tensor([0, 1])).loss.backward()
    with torch.no_grad():
        for name in trained:
            gradient = model.get_parameter(name).grad
            assert gradient is not None, name
            model.get_parameter(name).sub_(gradient + 0.01)
    method.save(model, tmp_path, IDENTITY)
    assert own <= load_file(tmp_path / WEIGHTS_NAME).keys()
    restored = METHODS["bitfit"](None).restore(_build_deberta(), tmp_path, head)
    with torch.no_grad():
        expected = model.eval()(input_ids=words).logits
        assert torch.equal(restored.model(input_ids=words).logits, expected)
    # One of before, which had not trained them, is read as it was.
    former = {name: tensor for name, tensor in load_file(tmp_path / WEIGHTS_NAME).items() if name not in own}
    save_file(former, tmp_path / WEIGHTS_NAME)
    kept = METHODS["bitfit"](None).restore(_build_deberta(), tmp_path, head).model
    fresh = _build_deberta()
    assert all(torch.equal(kept.get_parameter(name), fresh.get_parameter(name)) for name in own)
