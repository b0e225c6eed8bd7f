"""Every method under a head that points at tokens: it reads the same input and points at the same tokens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForQuestionAnswering, PreTrainedConfig

from lorry_components.methods import METHODS, Method
from lorry_components.task_types import TASK_TYPES, InputForm, TaskType
from lorry_registry.errors import TrainingError
from lorry_registry.manifest import CONFIG_NAME, WEIGHTS_NAME, BaseIdentity

IDENTITY = BaseIdentity(
    model="package:somewhere/model", revision=None, fingerprint="sha256:" + "0" * 64, architecture="any"
)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "ft-top": ("ft-top", {"layers": 1}),
    "bitfit": ("bitfit", {}),
    "adapter-h": ("adapter-h", {}),
    "adapter-p": ("adapter-p", {}),
    "adapter-l": ("adapter-l", {}),
    "adapter-d": ("adapter-d", {"drop": 1}),
    "prelayer": ("prelayer", {"tokens": 3}),
    "lora": ("lora", {"r": 4}),
    "lora-all-linear": ("lora", {"r": 4, "targets": "all-linear", "dora": True}),
    "adalora": ("adalora", {"r": 4, "target_r": 2, "interval": 1}),
    "vera": ("vera", {"r": 16}),
    "ia3": ("ia3", {}),
    "prompt-tuning": ("prompt-tuning", {"tokens": 3}),
    "p-tuning": ("p-tuning", {"tokens": 3}),
    "p-tuning-v2": ("p-tuning-v2", {"tokens": 3}),
    "peft": ("peft", {"type": "MISS", "r": 2}),
}
STYLES = ("bert", "roberta", "deberta-v2")
SOFT = ("prelayer", "prompt-tuning", "p-tuning")
# What changes nothing before it is trained.
STARTS_AS_NOTHING = ("bitfit", "adapter-p", "lora", "lora-all-linear", "peft")
REFUSED = {
    ("p-tuning-v2", "deberta-v2"): "takes no keys and values from outside",
    ("bitfit", "t5"): "has no biases",
    ("p-tuning-v2", "t5"): "is for one stack of blocks",
    ("prelayer", "t5"): "is for one stack of blocks",
}
WORKING = [
    (variant, style)
    for variant, (name, _) in VARIANTS.items()
    for style in (*STYLES, "t5")
    if (name, style) not in REFUSED
]


class Case:
    """A base with a method on it, and windows of which one is padded."""

    def __init__(self, folder: Path, variant: str) -> None:
        name, options = VARIANTS[variant]
        self.folder = folder
        self.task_type: TaskType = TASK_TYPES["question-answering"](InputForm(max_length=32, has_pair=True))
        self.method: Method = METHODS[name](options, self.task_type.peft_task_type)
        torch.manual_seed(1)
        bare, self.newly_initialized = self.task_type.load_model(folder, None)
        words = torch.randint(3, 99, (4, 8))
        mask = torch.ones_like(words)
        words[1, 5:] = mask[1, 5:] = 0
        self.batch = {"input_ids": words, "attention_mask": mask}
        if getattr(bare.config, "type_vocab_size", 0) > 1:
            types = torch.zeros_like(words)
            types[:, 3:] = 1
            self.batch["token_type_ids"] = types
        self.targets = {
            "start_positions": torch.tensor([0, 1, 4, 5]),
            "end_positions": torch.tensor([0, 2, 6, 5]),
        }
        bare.eval()
        self.untouched = self.compute(bare)
        self.model = self.method.adapt(bare, self.newly_initialized)
        self.model.eval()

    def compute(self, model: nn.Module | None = None, **changes: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            outputs = (model or self.model)(**self.batch | changes)
        return torch.stack([outputs.start_logits, outputs.end_logits])

    def learn(self, steps: int = 3) -> list[float]:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.01)
        self.model.train()
        self.method.start_training(self.model, steps)
        losses = []
        for step in range(steps):
            loss = self.model(**self.batch, **self.targets).loss
            losses.append(float(loss.detach()))
            loss.backward()
            optimizer.step()
            self.method.finish_step(self.model, step + 1)
            optimizer.zero_grad()
        self.model.eval()
        return losses


MakeCase = Callable[[str, str], Case]


@pytest.fixture
def make(family_base: Callable[[str], Path]) -> MakeCase:
    return lambda variant, style: Case(family_base(style), variant)


def test_every_method_is_tried() -> None:
    assert {name for name, _ in VARIANTS.values()} == METHODS.keys() - {"qlora", "probe"}


@pytest.mark.parametrize(("variant", "style"), WORKING)
def test_what_was_learned_comes_back(make: MakeCase, variant: str, style: str, tmp_path: Path) -> None:
    case = make(variant, style)
    before = case.compute()
    # Soft tokens have no scores of their own: each is of a token of the window.
    assert before.shape == (2, 4, 8)
    if variant in STARTS_AS_NOTHING:
        # PEFT's own model would not read the token types.
        assert torch.equal(before, case.untouched)
    case.learn()
    learned = case.compute()
    assert not torch.equal(learned, before)
    folder = tmp_path / "adapter"
    folder.mkdir()
    case.method.save(case.model, folder, IDENTITY)
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]
    torch.manual_seed(99)
    bare, newly_initialized = case.task_type.load_model(case.folder, None)
    restored = METHODS[case.method.name](None).restore(bare, folder, newly_initialized)
    assert torch.equal(case.compute(restored.model), learned)
    with restored.without_adapter():
        assert not torch.equal(case.compute(restored.model), learned)
    assert torch.equal(case.compute(restored.model), learned)
    if "token_type_ids" in case.batch:
        types = case.batch["token_type_ids"]
        assert not torch.equal(case.compute(token_type_ids=torch.zeros_like(types)), learned)
    # A window alone and beside longer ones.
    with torch.inference_mode():
        alone = case.model(**{name: tensor[1:2, :5] for name, tensor in case.batch.items()})
    torch.testing.assert_close(alone.start_logits, learned[0, 1:2, :5], rtol=0, atol=1e-5)
    assert case.method.count_parameters(case.model, case.newly_initialized).head == 66


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", SOFT)
def test_positions_are_those_of_the_input(make: MakeCase, name: str, style: str) -> None:
    case = make(name, style)
    outputs = case.model(**case.batch, **case.targets)
    losses = [
        nn.functional.cross_entropy(scores, case.targets[field])
        for scores, field in (
            (outputs.start_logits, "start_positions"),
            (outputs.end_logits, "end_positions"),
        )
    ]
    torch.testing.assert_close(outputs.loss, torch.stack(losses).mean())
    # Where no block moves anything from one position to another, a word decides on its own score alone.
    with torch.no_grad():
        for parameter_name, parameter in case.model.named_parameters():
            if ".output.dense." in parameter_name:
                parameter.zero_()
    before = case.compute()
    words = case.batch["input_ids"].clone()
    words[0, 5] = (words[0, 5] + 7) % 90 + 3
    changed = (case.compute(input_ids=words) - before).abs().amax(dim=0) > 1e-6
    assert changed.nonzero().tolist() == [[0, 5]]


def test_soft_tokens_learn_to_point(make: MakeCase) -> None:
    for name in SOFT:
        losses = make(name, "bert").learn(30)
        assert losses[-1] < 0.5 * losses[0], name


@pytest.mark.parametrize(("name", "style"), REFUSED)
def test_what_cannot_work_is_refused_with_the_reason(
    name: str, style: str, tiny_config: Callable[[str], PreTrainedConfig], family_base: Callable[[str], Path]
) -> None:
    options = next(options for variant, options in VARIANTS.values() if variant == name)
    method = METHODS[name](options, "QUESTION_ANS")
    told = [fault.advice for fault in method.check_base(tiny_config(style))]
    assert any(REFUSED[name, style] in what for what in told)
    if name == "bitfit":
        # Which only looks at the body: the head has a bias that it could train.
        return
    assert all("; choose " in what for what in told), told
    bare, newly_initialized = TASK_TYPES["question-answering"](InputForm(32)).load_model(
        family_base(style), None
    )
    with pytest.raises(TrainingError, match=REFUSED[name, style]):
        method.adapt(bare, newly_initialized)


@pytest.mark.parametrize("variant", ["lora-all-linear", "prompt-tuning", "full", "adapter-h"])
def test_a_base_may_bring_a_trained_head(
    variant: str, tiny_config: Callable[[str], PreTrainedConfig], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    AutoModelForQuestionAnswering.from_config(tiny_config("bert")).save_pretrained(tmp_path / "base")
    case = Case(tmp_path / "base", variant)
    assert case.newly_initialized == frozenset()
    case.learn()
    (tmp_path / "adapter").mkdir()
    case.method.save(case.model, tmp_path / "adapter", IDENTITY)
    bare, newly_initialized = case.task_type.load_model(case.folder, None)
    restored = METHODS[case.method.name](None).restore(bare, tmp_path / "adapter", newly_initialized)
    before, after = case.model.state_dict(), restored.model.state_dict()
    for name in before.keys() & after.keys():
        assert torch.equal(before[name], after[name]), name
    # Some processors add up in another order where the same numbers lie elsewhere in memory.
    torch.testing.assert_close(case.compute(restored.model), case.compute(), rtol=0.0, atol=1e-6)


def test_a_base_with_classes_of_its_own_gets_two_outputs(
    tiny_config: Callable[[str], PreTrainedConfig], family_base: Callable[[str], Path], tmp_path: Path
) -> None:
    config = tiny_config("bert")
    config.num_labels = 5
    task_type = TASK_TYPES["question-answering"](InputForm(32))
    bare, _ = task_type.load_model(family_base("bert"), None)
    bare.save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).num_labels == 5
    model, newly_initialized = task_type.load_model(tmp_path, None)
    assert newly_initialized == frozenset()
    assert model.get_parameter("qa_outputs.weight").shape == (2, 32)
